"""Chromium, driven by its own driver, for pictures of the page and for its benchmark."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

INSTALL = "apt-get install chromium chromium-driver"


@contextmanager
def chromium() -> Iterator[Chrome]:
    """A browser without a window.

    Raises:
        FileNotFoundError: there is no Chromium; the text says how to install it.
    """
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise FileNotFoundError(f"there is no Chromium: {INSTALL}")
    options = ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1100,900"):
        options.add_argument(flag)
    chrome = Chrome(options, ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()
