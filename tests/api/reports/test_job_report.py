"""The report of a job: its figures, what it shows of hostile text, and the page in a browser."""

import io
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx2
import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver import Chrome

from api.reports import page
from api.reports.summary import LISTED_PICTURES, Picture, Summary, quantile
from piqueue import Client, cli
from scripts.local.stack import Stack
from tests.api.polling import wait_done
from tests.api.stored_jobs import (
    MODEL,
    NOT_FOUND,
    TIMEOUT,
    HeldJobs,
    ledger,
    rejected,
    scored,
    store_job,
)
from tests.browser import Tab
from tests.golden import SAMPLES
from tests.scripts.workshop.known_scores import loads_nothing
from worker.jobs.items import ItemResult, ItemSpec
from worker.jobs.ledger.api_keys import ANYONE
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.record import Job, Lane, new_job_id

COUNT = 2500
HOSTILE = "<img src=x onerror=document.title='owned'>"
SECRET = "X-Amz-Signature=5ec2e7"


def spec(index: int) -> ItemSpec:
    if index == 7:
        return ItemSpec(HOSTILE, f"https://h/{index}.jpg?{SECRET}")
    if index % 2:
        return ItemSpec(f"sku-{index}", f"https://h/{index}.jpg")
    return ItemSpec(str(index), f"https://pictures.example.com/{index}.jpg?{SECRET}")


def result(index: int) -> ItemResult:
    """Give every tenth a rejection, the others scores that differ from item to item."""
    if index % 10 == 7:
        return rejected(TIMEOUT if index % 20 == 7 else NOT_FOUND)
    if index % 10 == 5:
        return scored(0.1, 0.2, 0.3, 0.02)
    part = index / COUNT
    return scored(part, 1 - part, round(part * 37 % 1, 5), 0.004)


@pytest.fixture(scope="module")
def store(stack: Stack) -> Iterator[HeldJobs]:
    with ledger(stack.redis_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def job(store: HeldJobs) -> Job:
    return store_job(store, COUNT, spec, result)


@pytest.fixture
def report(client: httpx2.Client, job: Job) -> str:
    return client.get(f"/jobs/{job.id}/report").raise_for_status().text


def text_of(html: str) -> str:
    """The text of a page, with one space between words."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def test_a_summary_counts_what_the_results_say(store: HeldJobs, job: Job) -> None:
    summary, results = Summary(MODEL), list(store.results(job))
    for one in results:
        summary.add(one)
    scores = {one.index: one.result.scores for one in results if one.result.scores}
    labels = {
        index: [at for at in range(4) if row[at] >= MODEL.thresholds[at]]
        for index, row in scores.items()
    }
    assert summary.scored == len(scores)
    assert summary.unlabelled == sum(not found for found in labels.values()) > 0
    for at in range(4):
        histogram = summary.histogram(at)
        column = sorted(row[at] for row in scores.values())
        assert [sum(histogram[:cut]) for cut in (1, 29, 50, 100)] == [
            sum(score < cut / 100 for score in column) for cut in (1, 29, 50)
        ] + [len(column)]
        assert summary.labels[at].predicted == sum(at in found for found in labels.values())
        best = [
            index
            for index in sorted(scores, key=lambda one: -scores[one][at])
            if at in labels[index]
        ]
        surest = [picture.index for picture, _ in summary.surest(at)]
        assert surest == best[:LISTED_PICTURES]
        near = sorted(
            (index for index in scores if scores[index][at] >= 0.01),
            key=lambda one: abs(scores[one][at] - MODEL.thresholds[at]),
        )
        shown = [index for index in near[:LISTED_PICTURES] if index not in surest]
        assert [picture.index for picture, _ in summary.least_sure(at)] == shown
    pairs = [pair for found in labels.values() for pair in combinations(found, 2)]
    assert dict(summary.together) == {pair: pairs.count(pair) for pair in set(pairs)} != {}
    assert {code: failure.count for code, failure in summary.failures.items()} == job.failures
    assert quantile(summary.times_ms["decode"], 0.95) == 6


def test_equal_scores_list_the_first_pictures(store: HeldJobs) -> None:
    same = store_job(store, 50, lambda index: ItemSpec(f"{index}-"), lambda _: scored(1, 0, 0, 0))
    summary = Summary(MODEL)
    for one in store.results(same):
        summary.add(one)
    assert [picture.index for picture, _ in summary.surest(0)] == [*range(LISTED_PICTURES)]


@pytest.mark.parametrize(
    ("given", "picture"),
    [
        (ItemSpec("3", "https://h/a.jpg"), Picture(3, "h/a.jpg", "https://h/a.jpg")),
        (ItemSpec("3", f"https://h/a.jpg?{SECRET}"), Picture(3, "h/a.jpg")),
        (ItemSpec("a", f"https://h/a.jpg?{SECRET}"), Picture(3, "a")),
        (ItemSpec("3", "s3://bucket/50%?.jpg"), Picture(3, "s3://bucket/50%?.jpg")),
        (ItemSpec("3", None, "a?b.jpg"), Picture(3, "a?b.jpg")),
        (ItemSpec("a/b.jpg", None, "b.jpg"), Picture(3, "a/b.jpg")),
    ],
)
def test_a_picture_is_named_without_what_may_be_secret(given: ItemSpec, picture: Picture) -> None:
    assert Picture.of(3, given) == picture


def test_numbers_are_written_for_people() -> None:
    assert [page.number(value) for value in (7, 1234567, 0.5, 4567.8)] == [
        *("7", "1,234,567", "0.5", "4,568"),
    ]
    assert [
        page.share(*pair) for pair in ((0, 0), (0, 9), (1, 10**6), (999_999, 10**6), (9, 9))
    ] == [
        *("0 %", "0 %", "0.1 %", "99.9 %", "100 %"),
    ]
    assert [page.duration(value) for value in (0.04, 59.7, 61, 3600, 90061)] == [
        *("0.0 s", "1 min", "1 min 1 s", "1 h", "1 d 1 h"),
    ]
    assert [page.size(value) for value in (12, 3400, 2_500_000_000)] == [
        "12 bytes",
        "3.4 kB",
        "2.5 GB",
    ]
    assert page.shortened("abcdefghijkl", 7) == "abcd…kl"


def test_a_report_says_what_came_of_the_job(report: str) -> None:
    said = text_of(report)
    assert "Scored 2,250 90.0 % of the pictures" in said
    assert "Failed 250 10.0 %, by reason below" in said
    assert "125 × The host took too long fetch_timeout Retry later." in said
    assert "125 × The host answered with an error fetch_http_status Correct the URL" in said
    assert f"sku-27 : {TIMEOUT.detail}" in said
    assert "h 1,000 99 ms 125 × no answer in time, 125 × no connection or unusable" in said
    assert f"{MODEL.name}@{MODEL.version}" in said
    assert "2,250 JPEG; 412.0 MB in all." in said


def test_a_report_loads_nothing_and_shows_hostile_text_as_text(report: str) -> None:
    assert loads_nothing(report)
    assert HOSTILE not in report
    assert "&lt;img src=x onerror=" in report
    assert SECRET not in report
    assert 'href="https://h/27.jpg"' in report


def test_a_report_is_a_page_that_nothing_may_be_added_to(client: httpx2.Client, job: Job) -> None:
    answer = client.get(f"/jobs/{job.id}/report")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-disposition"] == f'inline; filename="{job.id}.html"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert policy == f"{page.POLICY}; frame-ancestors 'none'"
    head = client.head(f"/jobs/{job.id}/report")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == answer.headers["content-type"]
    assert client.get("/jobs/job_gone/report").json()["code"] == "job_not_found"


def test_the_report_of_a_finished_job_is_read_once(
    client: httpx2.Client, store: HeldJobs, job: Job
) -> None:
    address = f"/jobs/{job.id}/report"
    tag = client.get(address).headers["etag"]
    again = client.get(address, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
    another = store_job(store, 1, spec, result)
    assert client.get(f"/jobs/{another.id}/report").headers["etag"] != tag


def test_the_report_of_another_owner_is_not_found(client: httpx2.Client, store: HeldJobs) -> None:
    one = store_job(store, 1, spec, result, owner="someone")
    assert client.get(f"/jobs/{one.id}/report").status_code == 404


def test_a_job_that_runs_has_a_report_of_what_is_finished(
    client: httpx2.Client, store: HeldJobs
) -> None:
    new = NewJob(new_job_id(), ANYONE, MODEL, ttl_s=600, name=HOSTILE)
    for chunk in range(2):
        store.put_chunk(new.id, chunk, [spec(chunk)])
    store.submit(new, Shape(Lane.BULK, 2, 1))
    waiting = text_of(client.get(f"/jobs/{new.id}/report").text)
    assert "This job is waiting" in waiting
    store.commit(store.claim(new.id, 0), [result(3)])
    answer = client.get(f"/jobs/{new.id}/report").text
    assert "This job is running: the report is about what is finished so far." in text_of(answer)
    assert "1 not finished" in text_of(answer)
    assert HOSTILE not in answer
    assert "etag" not in client.head(f"/jobs/{new.id}/report").headers
    store.cancel(new.id)
    assert "1 not scored, because the job was stopped" in text_of(
        client.get(f"/jobs/{new.id}/report").text
    )


def test_a_report_of_a_model_of_many_labels_has_those_that_occur(client: httpx2.Client) -> None:
    photos = ["mountains.jpg", "forest_stream.jpg"]
    files: list[Any] = [("files", (name, (SAMPLES / name).read_bytes())) for name in photos]
    files.append(("options", (None, b'{"model": "imagenet"}', "application/json")))
    done = wait_done(client, client.post("/jobs", files=files).raise_for_status().json())
    html = client.get(f"/jobs/{done['id']}/report").raise_for_status().text
    assert re.findall(r'<b title="([^"]*)">', html) == ["alp", "valley"]
    assert "of which the best 5 of a picture are given" in text_of(html)


def test_clients_and_the_command_write_the_report(
    stack: Stack, job: Job, report: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = io.BytesIO()
    with Client(stack.url) as client:
        client.report(job.id, target)
    assert target.getvalue().decode() == report
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIQUEUE_URL", stack.url)
    assert cli.main(["report", job.id]) == 0
    assert (tmp_path / f"{job.id}.html").read_text() == report
    assert cli.main(["report", job.id, "-o", "mine.html"]) == 0
    assert (tmp_path / "mine.html").read_text() == report
    assert cli.main(["report", "job_gone"]) == 1
    assert not (tmp_path / "job_gone.html").exists()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_opens_as_a_file_for_everyone(
    report: str, browser: Chrome, tmp_path: Path, scheme: str
) -> None:
    (tmp_path / "report.html").write_text(report)
    tab = Tab(browser)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    narrow = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        browser.get((tmp_path / "report.html").as_uri())
        assert [one.text for one in tab.all("h2")] == [
            *("Pictures", "Labels", "Scores", "Labels together", "Surest and least sure"),
            *("Failures", "Hosts", "Times", "Model and settings"),
        ]
        assert len(tab.all("svg.bars")) == 4
        background = tab.one("body").value_of_css_property("background-color")
        assert (
            background == {"light": "rgba(246, 247, 247, 1)", "dark": "rgba(17, 23, 22, 1)"}[scheme]
        )
        violations = Axe().run(browser)["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == []
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
        root = "document.documentElement"
        assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
        assert tab.messages() == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
