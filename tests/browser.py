"""A real browser for tests: Chromium, as Debian packages it, driven by its own driver."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

DEADLINE_S = 60
NOT_TESTED = "NOT TESTED"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--disable-dev-shm-usage", "--window-size=1100,900"),
)


class Tab:
    """The open page, as a person uses it."""

    def __init__(self, browser: Chrome) -> None:
        """Leave the open page and discard its messages."""
        self.browser = browser
        browser.get("about:blank")
        browser.get_log("browser")  # type: ignore[no-untyped-call]

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def wait(self, what: str, found: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not _holds(found):
            assert time.monotonic() < deadline, f"no {what}: {self.one('body').text}"
            time.sleep(0.05)

    @contextmanager
    def width(self, pixels: int) -> Iterator[None]:
        """Make the page so wide while the block runs."""
        size = {"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            yield
        finally:
            self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def fits(self) -> bool:
        """Whether the page can be read without scrolling sideways."""
        wide = "return document.documentElement.scrollWidth > innerWidth"
        return not self.browser.execute_script(wide)

    def messages(self) -> list[str]:
        """Give what the browser reports: script errors, violations of the content policy."""
        return [
            entry["message"]
            for entry in self.browser.get_log("browser")  # type: ignore[no-untyped-call]
            if entry["source"] != "network"
        ]


def _holds(found: Callable[[], object]) -> bool:
    """Whether it is found; not before the page has the element, nor while it is replaced."""
    try:
        return bool(found())
    except (NoSuchElementException, StaleElementReferenceException):
        return False


def unavailable(reason: str) -> NoReturn:
    """Skip a test that cannot run on this machine; in CI, fail it: CI must run every test.

    `reason` says what is not tested and how to change that; tests/conftest.py prints it last.
    """
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{NOT_TESTED}: {reason}")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Run one browser for all tests of pages."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        unavailable(
            "the web page, without Chromium: apt-get install chromium chromium-driver "
            "fonts-dejavu-core"
        )
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()
