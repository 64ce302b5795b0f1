"""The web page in a real browser."""

import csv
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from redis import Redis
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from scripts.local.stack import Stack
from tests.api.polling import all_results
from tests.api.reverse_proxy import ReverseProxy
from tests.browser import Tab
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.worker.fetching.site import Answer, Site
from worker.jobs.ledger.api_keys import KeyStore, Scope

HOSTILE = "<img src=x onerror=document.title='owned'>.jpg"


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

    def rows(self, count: int) -> list[WebElement]:
        self.wait(f"{count} rows", lambda: len(self.all("#rows tr")) == count)
        return self.all("#rows tr")

    def names(self, count: int) -> list[str]:
        return [row.find_element(By.CSS_SELECTOR, ".name").text for row in self.rows(count)]

    def choose(self, selector: str, text: str) -> None:
        Select(self.one(selector)).select_by_visible_text(text)

    def downloaded(self, link: str, name: str) -> str:
        self.one(link).click()
        path = self.downloads / name
        self.wait(f"download of {name}", path.exists)
        return path.read_text()


@pytest.fixture
def page(browser: Chrome, tmp_path: Path) -> Page:
    """Give an empty tab, without the console messages of earlier tests."""
    page = Page(browser, tmp_path / "downloads")
    behaviour = {"behavior": "allow", "downloadPath": str(page.downloads)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    return page


def picture_files(folder: Path, names: Sequence[str]) -> str:
    """Write pictures that differ; gives their paths as a file input takes them."""
    for seed, name in enumerate(names):
        (folder / name).write_bytes(jpeg(seed))
    return "\n".join(str(folder / name) for name in names)


def shown_scores(row: WebElement) -> dict[str, float]:
    labels = [label.text for label in row.find_elements(By.TAG_NAME, "dt")]
    numbers = [one.text for one in row.find_elements(By.CSS_SELECTOR, ".number")]
    return {
        label: float(text.removesuffix(" %")) / 100
        for label, text in zip(labels, numbers, strict=True)
    }


def is_loaded(picture: WebElement) -> bool:
    return picture.get_property("naturalWidth") == 320


def test_three_pictures_are_uploaded_scored_shown_and_downloaded(
    page: Page, stack: Stack, client: httpx2.Client, tmp_path: Path
) -> None:
    page.open(stack.url)
    names = ["a.jpg", "b.jpg", "c.jpg"]
    page.one("#pick-files").send_keys(picture_files(tmp_path, names))
    page.wait("pictures", lambda: page.one("#start").text == "Score 3 pictures")
    page.start("Done")

    rows = page.rows(3)
    assert sorted(page.names(3)) == names
    job_id = page.browser.current_url.partition("#")[2]
    job = client.get(f"/jobs/{job_id}").raise_for_status().json()
    results = all_results(client, job)
    for row, result in zip(rows, results, strict=True):
        assert row.find_element(By.CSS_SELECTOR, ".name").text == result["id"]
        assert shown_scores(row) == pytest.approx(result["scores"], abs=0.0006)
        picture = row.find_element(By.TAG_NAME, "img")
        page.browser.execute_script("arguments[0].scrollIntoView()", picture)
        page.wait("thumbnail", partial(is_loaded, picture))

    table = list(csv.DictReader(page.downloaded("#as-csv", f"{job_id}.csv").splitlines()))
    assert [row["id"] for row in table] == [result["id"] for result in results]
    assert len(page.downloaded("#as-jsonl", f"{job_id}.jsonl").splitlines()) == 3

    page.browser.refresh()
    assert sorted(page.names(3)) == names
    assert page.messages() == []


@pytest.mark.parametrize("path", ["/pq/", "/pq"])
def test_the_page_works_below_the_prefix_of_a_proxy(
    page: Page, stack: Stack, tmp_path: Path, path: str
) -> None:
    # Without headers of the proxy: the page's addresses are relative.
    with ReverseProxy(stack.url, "/pq", {}) as proxy:
        page.open(proxy.url(path))
        page.one("#pick-files").send_keys(picture_files(tmp_path, ["a.jpg"]))
        page.start("Done")
        assert page.names(1) == ["a.jpg"]
        address, _, job_id = page.browser.current_url.partition("#")
        assert address == proxy.url("/pq/")
        assert "a.jpg" in page.downloaded("#as-csv", f"{job_id}.csv")
        page.one("header a").click()
        page.wait("documentation", lambda: page.browser.current_url == proxy.url("/pq/docs"))


def test_the_documentation_works_without_other_sites(page: Page, stack: Stack) -> None:
    # Below a prefix, too: its addresses are relative.
    with ReverseProxy(stack.url, "/pq", {"X-Forwarded-Prefix": "/pq"}) as proxy:
        page.browser.get(proxy.url("/pq/docs"))
        page.wait("routes", lambda: len(page.all(".opblock")) > 20)
        assert page.one(".servers option").text == "/pq"
        page.one(".btn.authorize").click()
        page.wait("form for a key", lambda: page.all(".auth-container input"))
        page.one(".btn.modal-btn.btn-done").click()
        page.one("#operations-service-healthz_healthz_get button").click()
        page.wait("button", lambda: page.all(".try-out__btn"))
        page.one(".try-out__btn").click()
        page.wait("button", lambda: page.all(".execute"))
        page.one(".execute").click()
        page.wait(
            "answer", lambda: page.all(".live-responses-table .response .response-col_status")
        )
        assert page.one(".live-responses-table .response .response-col_status").text == "200"
        page.one("#operations-jobs-submit_job_jobs_post button").click()
        page.wait("example", lambda: "example.com" in page.one("#swagger-ui").text)
        script = "return performance.getEntriesByType('resource').map((one) => one.name)"
        loaded = page.browser.execute_script(script)
        assert len(loaded) >= 4
        assert [url for url in loaded if not url.startswith(proxy.url("/pq/"))] == []
    assert page.messages() == []


def test_a_hostile_file_name_is_shown_as_text(page: Page, stack: Stack, tmp_path: Path) -> None:
    page.open(stack.url)
    page.one("#pick-files").send_keys(picture_files(tmp_path, [HOSTILE, "b.jpg"]))
    raw, text = tmp_path / f"no{HOSTILE}", tmp_path / f"text{HOSTILE}"
    raw.write_bytes(b"\0\0\0\x18ftypcrx " + bytes(100))
    text.write_text("no picture")
    page.one("#pick-files").send_keys(f"{raw}\n{text}")
    says = "1 file without a picture skipped: text"
    page.wait("count", lambda: says in page.one("#chosen-text").text)
    page.start("Done")
    assert sorted(page.names(2)) == sorted([HOSTILE, "b.jpg"])
    assert page.all(".name img") == []
    skipped, refused = page.all("#refused-files li")
    assert skipped.text == f"text{HOSTILE}: not a picture by its first bytes"
    assert refused.text.startswith(f"no{HOSTILE}: not a JPEG")
    assert page.all("#left-out img") == []
    assert page.browser.title == "Done – Piqueue"
    assert page.messages() == []


def test_urls_that_fail_are_shown_and_filtered(page: Page, stack: Stack) -> None:
    async def picture(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=jpeg(5))

    answers: dict[str, Answer] = {"/good.jpg": picture}
    with Site(answers) as site:
        page.open(stack.url)
        page.one("[value=urls]").click()
        page.one("#urls").send_keys(f"{site.url('/good.jpg')}\n\n{site.url('/bad.jpg')}\n")
        page.start("Done, some failed")
        assert page.names(2) == [site.url("/good.jpg"), site.url("/bad.jpg")]
        page.choose("#by-status", "Failed")
        assert page.names(1) == [site.url("/bad.jpg")]
        assert page.one("#rows .failed").text.startswith("not_an_image")
        page.choose("#by-status", "Scored")
        page.wait("good row", lambda: page.names(1) == [site.url("/good.jpg")])
    assert page.messages() == []


def test_urls_that_are_refused_are_named_by_their_row(page: Page, stack: Stack) -> None:
    page.open(stack.url)
    page.one("[value=urls]").click()
    page.one("#urls").send_keys("http://example.com/a.jpg\nnonsense")
    page.one("#start").click()
    page.wait("refusal", lambda: page.all("#new-error li"))
    assert page.one("#new-error li").text.startswith("row 2: ")


def test_a_csv_is_sent_with_the_columns_its_header_has(
    page: Page, stack: Stack, client: httpx2.Client, tmp_path: Path
) -> None:
    with Site() as site:
        rows = [["sku, old", "picture_url", "price"], ["x-1", site.url("/a.jpg"), "9.90"]]
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        page.open(stack.url)
        page.one("[value=csv]").click()
        page.one("#pick-csv").send_keys(str(tmp_path / "rows.csv"))
        page.wait("columns", lambda: page.one("#url-column").get_property("value") == "picture_url")
        page.choose("#id-column", "sku, old")
        page.start("Failed")
        assert page.names(1) == [f"x-1: {site.url('/a.jpg')}"]
    job_id = page.browser.current_url.partition("#")[2]
    (result,) = client.get(f"/jobs/{job_id}").json()["results"]
    assert (result["id"], result["columns"]) == ("x-1", {"price": "9.90"})


def test_a_csv_that_is_separated_otherwise_is_said_to_be_so(
    page: Page, stack: Stack, tmp_path: Path
) -> None:
    page.open(stack.url)
    page.one("[value=csv]").click()
    tables = {
        "semicolons.csv": (b"url;sku\nhttp://h/;a\n", "separated by semicolons"),
        "utf16.csv": ("url,sku\n".encode("utf-16"), "not UTF-8"),
    }
    for name, (content, says) in tables.items():
        (tmp_path / name).write_bytes(content)
        page.one("#pick-csv").send_keys(str(tmp_path / name))
        page.wait(says, lambda: says in page.one("#new-error").text)  # noqa: B023
        assert not page.one("#start").is_enabled()
    (tmp_path / "declared.csv").write_bytes(b"sep=;\r\nurl; sku;;\r\nhttp://h/;a;;\r\n")
    page.one("#pick-csv").send_keys(str(tmp_path / "declared.csv"))
    page.wait("columns", lambda: page.one("#url-column").get_property("value") == "url")
    assert [option.text for option in page.all("#id-column option")] == ["row number", "url", "sku"]
    assert not page.one("#new-error").is_displayed()


def test_a_service_with_keys_asks_for_one_and_keeps_it_in_the_tab(
    page: Page, tmp_path: Path
) -> None:
    with Stack(tmp_path / "stack", env=STACK_ENV) as stack:
        with Redis.from_url(stack.redis_url) as redis:
            keys = KeyStore(redis)
            key, reader = keys.add("ann"), keys.add("reader", scopes=[Scope.READ])
        # For a second the API takes it that there are no keys.
        page.wait("API that needs a key", lambda: httpx2.get(f"{stack.url}/jobs").is_client_error)
        page.open(stack.url)
        for wrong, told in (("pq_no", "This key is not valid"), ("pq_schlüssel", "copy it again")):
            page.enter_key(wrong)
            page.wait_for_text("#key-error", told)
        page.enter_key(key)
        page.wait("form", page.one("#new").is_displayed)
        page.one("#pick-files").send_keys(picture_files(tmp_path, ["a.jpg"]))
        page.start("Done")
        assert page.names(1) == ["a.jpg"]
        job_id = page.browser.current_url.partition("#")[2]
        assert "a.jpg" in page.downloaded("#as-csv", f"{job_id}.csv")
        page.browser.refresh()
        assert page.names(1) == ["a.jpg"]
        assert not page.one("#ask-key").is_displayed()

        page.one("#forget").click()
        page.wait("question for a key", lambda: page.all("#ask-key:not([hidden])"))
        assert page.stored() == ""
        page.enter_key(reader)
        page.wait_for_text("#job-error", "or it belongs to another key")
        page.one("#again").click()
        page.one("[value=urls]").click()
        page.one("#urls").send_keys("http://127.0.0.1:9/")
        page.one("#start").click()
        page.wait_for_text(
            "#new-error", "Your key does not allow this. Ask whoever runs this service"
        )
        assert reader in page.stored()
        page.browser.switch_to.new_window("tab")
        page.open(stack.url)
        assert page.one("#ask-key").is_displayed(), "the key is that of the other tab"
        page.browser.close()
        page.browser.switch_to.window(page.browser.window_handles[0])
    assert page.messages() == []


def test_a_service_that_is_gone_is_told_in_words(page: Page, tmp_path: Path) -> None:
    with Stack(tmp_path / "stack", workers=0, env=STACK_ENV) as stack:
        page.open(stack.url)
        page.one("[value=urls]").click()
        page.one("#urls").send_keys("http://127.0.0.1:9/")
    page.one("#start").click()
    page.wait_for_text("#new-error", "The service cannot be reached. Check your connection")


def test_the_page_runs_no_script_but_its_own_and_loads_nothing(client: httpx2.Client) -> None:
    answer = client.get("/").raise_for_status()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy: dict[str, Any] = {
        rule: values.split()
        for rule, _, values in (
            part.strip().partition(" ")
            for part in answer.headers["content-security-policy"].split(";")
        )
    }
    assert policy["default-src"] == ["'none'"]
    assert policy["connect-src"] == ["'self'"]
    assert policy["frame-ancestors"] == ["'none'"]
    for rule in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", " ".join(policy[rule]))
    assert re.findall(r"\son\w+\s*=\s*[\"']", answer.text) == []
    assert re.findall(r"(?:src|href)=\"(?!data:|docs\")", answer.text) == []
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", answer.text
    )
