"""Takes the pictures of the documentation in a real browser: `python -m scripts.screenshots`."""

import shutil
import sys
import tempfile
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from scripts.local.serve import SAMPLES
from scripts.local.stack import ROOT, Stack

IMAGES_PATH = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1100, 877
DEADLINE_S = 60


def main() -> int:
    """Write the pictures; the exit code is 1 where there is no Chromium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        print("screenshots need Chromium: apt-get install chromium chromium-driver")
        return 1
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},900"):
        options.add_argument(flag)
    IMAGES_PATH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder)) as stack:
        browser = Chrome(options, ChromeService(driver))
        try:
            take_results_page(browser, stack.url)
        finally:
            browser.quit()
    return 0


def take_results_page(browser: Chrome, url: str) -> None:
    """Score the sample photos in the page at `url` and take its results."""
    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(url)
    wait = WebDriverWait(browser, DEADLINE_S)
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#model option"))
    photos = sorted(path for path in SAMPLES.iterdir() if path.suffix in (".jpg", ".webp"))
    browser.find_element(By.ID, "pick-files").send_keys("\n".join(map(str, photos)))
    start = browser.find_element(By.ID, "start")
    wait.until(lambda _: start.is_enabled())
    start.click()
    wait.until(lambda page: page.find_element(By.ID, "chip").text == "Done")
    wait.until(lambda page: len(page.find_elements(By.CSS_SELECTOR, "#rows tr")) == len(photos))
    browser.execute_script("window.scrollTo(0, 0)")
    wait.until(
        lambda page: all(
            image.get_property("naturalWidth")
            for image in page.find_elements(By.CSS_SELECTOR, "#rows img")[:3]
        )
    )
    browser.save_screenshot(str(IMAGES_PATH / "results-page.png"))


if __name__ == "__main__":
    sys.exit(main())
