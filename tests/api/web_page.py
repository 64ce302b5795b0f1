"""The web page in a real browser, as a person uses it."""

from collections.abc import Sequence
from pathlib import Path

from axe_core_python.selenium import Axe
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from tests.browser import Tab
from tests.pictures import jpeg

_FIND = "document.querySelector('%s')"
_LISTEN = """
window.heard = [];
new MutationObserver((changes) => {
  const regions = changes.map(({ target }) => (target.closest ? target : target.parentElement)
    .closest("[role=status], [role=alert], [aria-live], output"));
  for (const region of new Set(regions)) {
    if (region?.checkVisibility()) window.heard.push(region.textContent);
  }
}).observe(document.body, { subtree: true, childList: true, characterData: true });
"""


class Page(Tab):
    """The page of a running Piqueue, as a person uses it; downloads go to `downloads`."""

    def __init__(self, browser: Chrome, downloads: Path) -> None:
        super().__init__(browser)
        self.downloads = downloads

    def open(self, url: str) -> None:
        self.browser.get(url)
        self.wait("model", lambda: self.all("#model option, #ask-key:not([hidden])"))

    def enter_key(self, key: str) -> None:
        self.one("#key").clear()
        self.one("#key").send_keys(key)
        self.one("#key-form button").click()

    def wait_for_text(self, selector: str, text: str) -> None:
        self.wait(text, lambda: text in self.one(selector).text)

    def stored(self) -> str:
        """Give all that the page stores, in the tab and beyond."""
        both = "Object.values(sessionStorage).concat(Object.values(localStorage)).join()"
        return str(self.browser.execute_script(f"return {both}"))

    def start(self, chip: str) -> None:
        """Start the job and wait until it stands at `chip`."""
        self.wait("button that works", self.one("#start").is_enabled)
        self.one("#start").click()
        self.wait(f"job that is {chip}", lambda: self.one("#chip").text == chip)

    def job_id(self) -> str:
        return self.browser.current_url.partition("#")[2].partition("?")[0]

    def rows(self, count: int) -> list[WebElement]:
        """Give the results as a list, once there are that many."""
        self.wait("results", self.one("#results").is_displayed)
        self.click("[value=list]")
        self.wait(f"{count} rows", lambda: len(self.all("#rows li")) == count)
        return self.all("#rows li")

    def names(self, count: int) -> list[str]:
        return [row.find_element(By.CSS_SELECTOR, ".name").text for row in self.rows(count)]

    def click(self, selector: str) -> None:
        """Click what may be hidden below a label, or out of view."""
        self.browser.execute_script("arguments[0].click()", self.one(selector))

    def drop(self, name: str, content: str) -> None:
        """Drop a file on the page."""
        self.browser.execute_script(
            "const dataTransfer = new DataTransfer();"
            "dataTransfer.items.add(new File([arguments[1]], arguments[0]));"
            "document.dispatchEvent(new DragEvent('drop', {dataTransfer, cancelable: true}))",
            *(name, content),
        )

    def drop_files(self, *paths: Path) -> None:
        """Drag files from the desktop onto the page, and drop them there."""
        box = self.one("main").rect
        files = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for step in ("dragEnter", "dragOver", "drop"):
            at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 10}
            event = {"type": step, **at, "data": files}
            self.browser.execute_cdp_cmd("Input.dispatchDragEvent", event)

    def listen(self) -> None:
        """Record from now on what a screen reader says: changes of live regions."""
        self.browser.execute_script(_LISTEN)

    def heard(self) -> list[str]:
        """Give what a screen reader has said since `listen`, in order."""
        heard: list[str] = self.browser.execute_script("return window.heard")
        return heard

    def politeness(self, selector: str) -> str | None:
        """Give how the browser tells a screen reader of changes: polite, assertive or None."""
        node = self.browser.execute_cdp_cmd("Runtime.evaluate", {"expression": _FIND % selector})
        found = {"objectId": node["result"]["objectId"], "fetchRelatives": False}
        tree = self.browser.execute_cdp_cmd("Accessibility.getPartialAXTree", found)
        properties = tree["nodes"][0].get("properties", [])
        return next(
            (str(one["value"]["value"]) for one in properties if one["name"] == "live"), None
        )

    def violations(self) -> list[str]:
        """Name the rules of accessibility that the page breaks as it is now."""
        found = Axe().run(self.browser)["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]

    def choose(self, selector: str, text: str) -> None:
        Select(self.one(selector)).select_by_visible_text(text)

    def downloaded(self, link: str, name: str) -> str:
        self.one(link).click()
        self.has_downloaded(name)
        return (self.downloads / name).read_text()

    def has_downloaded(self, name: str) -> None:
        """Wait for a complete file; the browser makes an empty one of its name at first."""
        path = self.downloads / name
        self.wait(f"download of {name}", lambda: path.exists() and path.stat().st_size)


def picture_files(folder: Path, names: Sequence[str]) -> str:
    """Write pictures that differ; gives their paths as a file input takes them."""
    for seed, name in enumerate(names):
        (folder / name).write_bytes(jpeg(seed))
    return "\n".join(str(folder / name) for name in names)
