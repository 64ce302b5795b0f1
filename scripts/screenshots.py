"""Takes the pictures of the documentation in a real browser: `python -m scripts.screenshots`."""

import sys
import tempfile
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from scripts.benchmarks.browser import chromium
from scripts.local.stack import ROOT, Stack

IMAGES_PATH = ROOT / "docs" / "images"
DEADLINE_S = 60
NARROW = 400
# Appearances by the end of the file name: colour scheme, width and height in pixels.
APPEARANCES = {
    "": ("light", 1100, 960),
    "-dark": ("dark", 1100, 960),
    "-narrow": ("light", 360, 780),
}


def main() -> int:
    """Write the pictures; the exit code is 1 where there is no Chromium."""
    IMAGES_PATH.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            chromium() as browser,
            Stack(Path(folder)) as stack,
        ):
            take_all(browser, stack.url)
    except FileNotFoundError as error:
        print(f"no pictures are taken: {error}")
        return 1
    return 0


def take_all(browser: Chrome, url: str) -> None:
    """Take the views of the page at `url`, and of a report."""
    take_start(browser, url)
    submit_samples(browser)
    for suffix, appearance in APPEARANCES.items():
        take(browser, suffix, *appearance)
    take_corrections(browser)
    browser.get(str(browser.find_element(By.ID, "report").get_property("href")))
    for suffix, appearance in APPEARANCES.items():
        appear(browser, *appearance)
        save(browser, f"report-page{suffix}.png")


def take_start(browser: Chrome, url: str) -> None:
    """Take the form of a new job in the page at `url`, and the card of the model."""
    browser.get(url)
    wait = WebDriverWait(browser, DEADLINE_S)
    wait.until(lambda page: page.find_element(By.ID, "try-samples").is_displayed())
    appear(browser, "light", 1100, 560)
    save(browser, "start-page.png")
    appear(browser, *APPEARANCES[""])
    browser.find_element(By.ID, "about-model").click()
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#model-card td"))
    save(browser, "model-page.png")
    browser.find_element(By.ID, "close-model").click()


def submit_samples(browser: Chrome) -> None:
    """Score the sample photos in the open page."""
    browser.find_element(By.ID, "try-samples").click()
    WebDriverWait(browser, DEADLINE_S).until(
        lambda page: page.find_element(By.ID, "chip").text == "Done"
    )


def appear(browser: Chrome, scheme: str, width: int, height: int) -> None:
    """Set the colour scheme and the size of the browser."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def take(browser: Chrome, suffix: str, scheme: str, width: int, height: int) -> None:
    """Take the results in one appearance."""
    appear(browser, scheme, width, height)
    wait = WebDriverWait(browser, DEADLINE_S)
    top = "document.body" if width > NARROW else "document.querySelector('#results')"
    browser.execute_script(f"{top}.scrollIntoView()")
    wait.until(shows_its_pictures)
    save(browser, f"results-page{suffix}.png")


def take_corrections(browser: Chrome) -> None:
    """Mark the results, and take one of them large and the table of labels that they make."""
    # With this threshold, more pictures are beaches than should be.
    browser.execute_script(
        "const slider = document.querySelector('.histogram input'); slider.value = 0.2;"
        "slider.dispatchEvent(new Event('input'));"
        "document.querySelector('#rows button').click()"
    )
    dialog = browser.find_element(By.ID, "picture")
    WebDriverWait(browser, DEADLINE_S).until(lambda _: dialog.is_displayed())
    press(browser, "rrrr1")  # a mountain is no beach
    for appearance, name in (("", "picture-page.png"), ("-dark", "picture-page-dark.png")):
        appear(browser, *APPEARANCES[appearance])
        WebDriverWait(browser, DEADLINE_S).until(
            lambda page: page.execute_script("return document.querySelector('.large img').width")
        )
        save(browser, name)
    press(browser, f"{Keys.ARROW_RIGHT}rrr")
    browser.find_element(By.ID, "close-picture").click()
    appear(browser, *APPEARANCES[""])
    browser.find_element(By.CSS_SELECTOR, "#go-on summary").click()
    browser.execute_script("document.querySelector('#corrections').scrollIntoView()")
    WebDriverWait(browser, DEADLINE_S).until(shows_its_pictures)
    save(browser, "corrections-page.png")


def press(browser: Chrome, keys: str) -> None:
    """Press keys one after the other."""
    ActionChains(browser).send_keys(keys).perform()


def save(browser: Chrome, name: str) -> None:
    """Save what the browser shows; without loss, so that text stays sharp."""
    browser.save_screenshot(str(IMAGES_PATH / name))


def shows_its_pictures(browser: Chrome) -> bool:
    """Whether the results are there and their pictures are loaded."""
    pictures = browser.find_elements(By.CSS_SELECTOR, "#rows img")
    return bool(pictures) and all(one.get_property("naturalWidth") for one in pictures)


if __name__ == "__main__":
    sys.exit(main())
