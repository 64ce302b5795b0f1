"""The page in an empty tab, for the tests of all its views."""

from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tests.api.web_page import Page


@pytest.fixture
def page(browser: Chrome, tmp_path: Path) -> Page:
    """Give an empty tab, without the console messages of earlier tests."""
    page = Page(browser, tmp_path / "downloads")
    behaviour = {"behavior": "allow", "downloadPath": str(page.downloads)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    return page
