"""Takes the pictures of the documentation in a real browser: `python -m scripts.screenshots`."""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from scripts.benchmarks.support.browser import chromium
from scripts.local.image_server import ImageServer
from scripts.local.serve import SAMPLES
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
# Of a job that runs: slow enough to be seen, with pictures that are missing or damaged.
SLOW_COUNT = 1000
SLOW_S = 0.5
PIQUEUE = (sys.executable, "-m", "piqueue")

# Answers for some of the sample photos; the page shows the others.
LABELS = """\
name,water,palms
beach.jpg,1,0
palm_beach.jpg,1,1
palm_sunset.jpg,1,1
campus.jpg,0,0
fig.jpg,0,0
forest_stream.jpg,1,0
mountains.jpg,0,0
"""


def main() -> int:
    """Write the pictures; the exit code is 1 where there is no Chromium."""
    IMAGES_PATH.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            chromium() as browser,
            Stack(Path(folder), env=settings(Path(folder))) as stack,
        ):
            take_all(browser, stack.url, Path(folder))
            take_key(browser, stack)
    except FileNotFoundError as error:
        print(f"no pictures are taken: {error}")
        return 1
    return 0


def settings(folder: Path) -> dict[str, str]:
    """The registry to which the label page adds a model, and access to slow pictures."""
    return {
        "PIQUEUE_REGISTRY_URL": str(folder / "registry"),
        "PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32",
    }


def environment(url: str, folder: Path) -> dict[str, str]:
    """The environment of the command."""
    return {**os.environ, **settings(folder), "PIQUEUE_URL": url}


def take_all(browser: Chrome, url: str, folder: Path) -> None:
    """Take the views of the page at `url`, of the reports, and of the label page."""
    take_start(browser, url)
    submit_samples(browser)
    job_id = browser.current_url.partition("#")[2].partition("?")[0]
    for suffix, appearance in APPEARANCES.items():
        take(browser, suffix, *appearance)
    take_corrections(browser)
    report = str(browser.find_element(By.ID, "report").get_property("href"))
    take_similar(browser)
    browser.get(report)
    take_each(browser, "report-page")
    take_models(browser, url)
    take_jobs(browser, url)
    take_evaluations(browser, url, job_id, folder)
    take_teach(browser, url, job_id, folder / "labels.csv")


def take_each(
    browser: Chrome, name: str, *, has_pictures: bool = True, height: int | None = None
) -> None:
    """Take what the browser shows in each appearance, in wide ones with this height in pixels."""
    for suffix, (scheme, width, usual) in APPEARANCES.items():
        appear(browser, scheme, width, height if height and width > NARROW else usual)
        if has_pictures:
            WebDriverWait(browser, DEADLINE_S).until(shows_its_pictures)
        save(browser, f"{name}{suffix}")


def take_start(browser: Chrome, url: str) -> None:
    """Take the form of a new job in the page at `url`, and the card of the model."""
    browser.get(url)
    wait = WebDriverWait(browser, DEADLINE_S)
    wait.until(lambda page: page.find_element(By.ID, "try-samples").is_displayed())
    take_each(browser, "start-page", has_pictures=False, height=560)
    browser.find_element(By.ID, "about-model").click()
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#model-card td"))
    take_each(browser, "model-page", has_pictures=False)
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
    save(browser, f"results-page{suffix}")


def take_corrections(browser: Chrome) -> None:
    """Mark the results, and take one of them large and the table of labels that they make."""
    # With this threshold, more pictures are beaches than should be.
    browser.execute_script(
        "const slider = document.querySelector('.histogram input'); slider.value = 0.1;"
        "slider.dispatchEvent(new Event('input'));"
        "document.querySelector('#rows button').click()"
    )
    dialog = browser.find_element(By.ID, "picture")
    WebDriverWait(browser, DEADLINE_S).until(lambda _: dialog.is_displayed())
    press(browser, "rrrr1")  # a mountain is no beach
    take_each(browser, "picture-page")
    appear(browser, *APPEARANCES[""])
    press(browser, f"{Keys.ARROW_RIGHT}rrr")
    browser.find_element(By.ID, "close-picture").click()
    appear(browser, *APPEARANCES[""])
    browser.find_element(By.CSS_SELECTOR, "#go-on summary").click()
    for suffix, appearance in APPEARANCES.items():
        appear(browser, *appearance)
        browser.execute_script("document.querySelector('#corrections').scrollIntoView()")
        WebDriverWait(browser, DEADLINE_S).until(shows_its_pictures)
        save(browser, f"corrections-page{suffix}")


def take_similar(browser: Chrome) -> None:
    """Take a picture with those that are similar to it."""
    appear(browser, *APPEARANCES[""])
    browser.find_element(By.CSS_SELECTOR, "#rows button").click()
    wait = WebDriverWait(browser, DEADLINE_S)
    wait.until(lambda page: page.find_element(By.CSS_SELECTOR, ".similar").is_displayed())
    browser.find_element(By.CSS_SELECTOR, ".similar summary").click()
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, ".similar img"))
    for suffix, appearance in APPEARANCES.items():
        appear(browser, *appearance)
        browser.execute_script("document.querySelector('.similar').scrollIntoView()")
        wait.until(shows_its_pictures)
        save(browser, f"similar-page{suffix}")
    browser.find_element(By.ID, "close-picture").click()


def take_models(browser: Chrome, url: str) -> None:
    """Take one picture of a job of several models, with the labels of all."""
    samples = [("files", (path.name, path.read_bytes())) for path in sorted(SAMPLES.glob("*.jpg"))]
    with httpx2.Client(base_url=url, timeout=DEADLINE_S) as client:
        given = {"models": ["scenes", "imagenet"], "thumbnails": True, "name": "two models"}
        options = ("options", (None, json.dumps(given)))
        job = client.post("/jobs", files=[*samples, options]).raise_for_status().json()
    appear(browser, *APPEARANCES[""])
    browser.get(f"{url}/#{job['id']}")
    wait = WebDriverWait(browser, DEADLINE_S)
    wait.until(lambda page: page.find_element(By.ID, "chip").text == "Done")
    wait.until(shows_its_pictures)
    browser.find_element(By.CSS_SELECTOR, "#rows button").click()
    wait.until(lambda page: page.find_element(By.ID, "picture").is_displayed())
    take_each(browser, "models-page")


def take_jobs(browser: Chrome, url: str) -> None:
    """Take a job while it runs, and the list of jobs."""
    photos = [path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg"))]

    def payload_of(name: str) -> bytes | None:
        number = int(name)
        missing, damaged = number % 40 == 1, number % 60 == 2
        return None if missing else photos[number % len(photos)][: 5000 if damaged else None]

    with ImageServer(payload_of, SLOW_S) as server, httpx2.Client(base_url=url) as client:
        urls = [server.url_of(str(number)) for number in range(SLOW_COUNT)]
        body = {"urls": urls, "name": "catalogue, spring", "thumbnails": True}
        job = client.post("/jobs", json=body).raise_for_status().json()
        appear(browser, *APPEARANCES[""])
        browser.get(f"{url}/#{job['id']}")
        wait = WebDriverWait(browser, DEADLINE_S)
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#rate svg"))
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#failures li"))
        take_each(browser, "running-page")
        browser.get(f"{url}/#jobs")
        wait.until(lambda page: len(page.find_elements(By.CSS_SELECTOR, "#job-rows tr")) > 1)
        take_each(browser, "jobs-page", has_pictures=False, height=560)
        client.post(f"/jobs/{job['id']}/cancel").raise_for_status()


def take_evaluations(browser: Chrome, url: str, job_id: str, folder: Path) -> None:
    """Take the reports of a taught model, and of how the bundled one differs."""
    table, taught = SAMPLES / "labels.csv", folder / "taught.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    # The last but one label has one picture, which is too few to teach.
    taught.write_text("".join(f"{','.join((*row[:3], *row[4:]))}\n" for row in rows))
    for name, command in (
        ("", ("teach", "holiday", taught, "--from", job_id)),
        ("evaluation", ("evaluate", "holiday", table)),
        ("comparison", ("compare", "holiday", "scenes", table)),
    ):
        output = folder / f"{name}.html"
        given = [*map(str, command), *(("-o", str(output)) if name else ())]
        subprocess.run([*PIQUEUE, *given], env=environment(url, folder), check=True)
        if name:
            browser.get(output.as_uri())
            take_each(browser, f"{name}-page", has_pictures=False)


def take_key(browser: Chrome, stack: Stack) -> None:
    """Take the form that asks for an API key."""
    env = {**os.environ, "PIQUEUE_REDIS_URL": stack.redis_url}
    subprocess.run(
        [*PIQUEUE, "keys", "add", "shop"], env=env, stdout=subprocess.DEVNULL, check=True
    )
    browser.get(stack.url)
    browser.refresh()
    WebDriverWait(browser, DEADLINE_S).until(
        lambda page: page.find_element(By.ID, "ask-key").is_displayed()
    )
    take_each(browser, "key-page", has_pictures=False, height=300)


def take_teach(browser: Chrome, url: str, job_id: str, table: Path) -> None:
    """Take the label page, and a model that it has taught."""
    table.write_text(LABELS)
    options = ("--csv", str(table), "--from", job_id, "--no-browser")
    command = [*PIQUEUE, "label", str(SAMPLES), *options]
    env = environment(url, table.parent)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as labelling:
        assert labelling.stdout
        try:
            found = re.search(r"http://\S+/", labelling.stdout.readline())
            assert found
            browser.get(found[0])
            wait = WebDriverWait(browser, DEADLINE_S)
            wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#labels button"))
            take_each(browser, "label-page")
            appear(browser, *APPEARANCES[""])
            browser.find_element(By.ID, "teach-button").click()
            browser.find_element(By.ID, "teach-name").send_keys("water", Keys.ENTER)
            text = browser.find_element(By.ID, "teach-text")
            wait.until(lambda _: text.text and not text.text.startswith("Teaching"))
            take_each(browser, "teach-page")
        finally:
            labelling.terminate()


def press(browser: Chrome, keys: str) -> None:
    """Press keys one after the other."""
    ActionChains(browser).send_keys(keys).perform()


def save(browser: Chrome, name: str) -> None:
    """Save what the browser shows, without loss where that is the smaller file."""
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    files = io.BytesIO(), io.BytesIO()
    picture.save(files[0], "WEBP", lossless=True, method=6)
    picture.save(files[1], "WEBP", quality=90, method=6)
    (IMAGES_PATH / f"{name}.webp").write_bytes(min((one.getvalue() for one in files), key=len))


def shows_its_pictures(browser: Chrome) -> bool:
    """Whether all pictures of the page are loaded and painted, and there are some."""
    return bool(
        browser.execute_script(
            "const all = [...document.images].filter(({ hidden }) => !hidden);"
            "if (!all.length || !all.every(({ naturalWidth }) => naturalWidth)) return false;"
            "const painted = () => new Promise((done) =>"
            "  requestAnimationFrame(() => requestAnimationFrame(() => done(true))));"
            "return Promise.all(all.map((one) => one.decode())).then(painted, () => false)"
        )
    )


if __name__ == "__main__":
    sys.exit(main())
