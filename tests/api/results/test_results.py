"""Reading results over HTTP: pages, downloads, filters; most of jobs written into the ledger."""

import csv
import io
import json
import math
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.parquet
import pytest

from api.openapi.literals import RESULTS, RETRIED
from api.results import cursors
from api.results.downloads import csv_table, jsonl
from api.results.histogram import HistogramPage, histogram_page
from api.results.selection import ScoreColumns, Selection
from api.results.table import Table
from api.schemas import JobOut, ResultsPage
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
from tests.pictures import jpeg
from worker.jobs.items import ItemResult, ItemSpec, Rejection
from worker.jobs.ledger.api_keys import ANYONE
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.record import CsvShape, Job, Lane, new_job_id

LABELS = ["beach", "city", "sunset", "trees"]
COUNT = 250
SHAPE = CsvShape(("sku", "url", "price"), "url", "sku")


def spec(index: int) -> ItemSpec:
    return ItemSpec(f"sku-{index}", f"https://h/{index}.jpg", columns={"price": f"{index}.50"})


def result(index: int) -> ItemResult:
    """Give every seventh a rejection, the others scores that differ from item to item."""
    if index % 7 == 3:
        return rejected(TIMEOUT if index % 2 else NOT_FOUND)
    return scored(index / COUNT, 1 - index / COUNT, 0.5, (index * 37 % COUNT) / COUNT)


@pytest.fixture(scope="module")
def store(stack: Stack) -> Iterator[HeldJobs]:
    with ledger(stack.redis_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def job(store: HeldJobs) -> Job:
    return store_job(store, COUNT, spec, result, csv=SHAPE, chunk_items=4)


def read(client: httpx2.Client, job: Job | dict[str, Any], **params: object) -> httpx2.Response:
    job_id = job.id if isinstance(job, Job) else job["id"]
    answer = client.get(f"/jobs/{job_id}/results", params=params)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return answer


def pages(client: httpx2.Client, job: Job, **params: object) -> list[list[dict[str, Any]]]:
    found = []
    while True:
        body = read(client, job, **params).json()
        found.append(body["items"])
        if "next_cursor" not in body:
            return found
        params["cursor"] = body["next_cursor"]


def table(client: httpx2.Client, job: Job | dict[str, Any], **params: object) -> list[list[str]]:
    text = read(client, job, format="csv", **params).content.decode()
    return list(csv.reader(io.StringIO(text, newline="")))


def parquet(client: httpx2.Client, job: Job | dict[str, Any], **params: object) -> Any:
    content = read(client, job, format="parquet", **params).content
    return pyarrow.parquet.read_table(io.BytesIO(content))


# Scores.


@pytest.mark.parametrize(
    ("params", "selects"),
    [
        ({"above": "beach:0.4"}, lambda one: one["scores"] and one["scores"]["beach"] >= 0.4),
        ({"below": "beach:0.4"}, lambda one: one["scores"] and one["scores"]["beach"] < 0.4),
        (
            {"above": ["beach:0.2", "trees:0.5"], "below": "beach:0.8", "search": "SKU-1"},
            lambda one: (
                one["scores"]
                and 0.2 <= one["scores"]["beach"] < 0.8
                and one["scores"]["trees"] >= 0.5
                and "sku-1" in one["id"]
            ),
        ),
        ({"search": "/24"}, lambda one: "/24" in one["source"]["url"]),
        ({"error": "fetch_timeout"}, lambda one: one["error"] and one["index"] % 2),
    ],
)
def test_filters_combine_in_pages_and_downloads(
    client: httpx2.Client, job: Job, params: dict[str, Any], selects: Callable[[Any], Any]
) -> None:
    everything = [item for page in pages(client, job) for item in page]
    wanted = [one for one in everything if selects(one)]
    assert 0 < len(wanted) < COUNT
    assert [item for page in pages(client, job, **params) for item in page] == wanted
    assert [row[0] for row in table(client, job, **params)[1:]] == [one["id"] for one in wanted]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"above": "beach"}, "above: 'beach' does not end with a number"),
        ({"above": "beach:high"}, "write it as label:number"),
        ({"above": "beach=0.9"}, "above: 'beach=0.9' does not end with a number"),
        ({"below": "beach:1.5"}, "0 to 1"),
        ({"below": "beach:nan"}, "0 to 1"),
        ({"below": "moon:0.5"}, "below: this model has no 'moon': use one of beach, city"),
        ({"include": "beach", "format": "csv"}, "include is for JSON and JSONL: remove it"),
    ],
)
def test_a_filter_by_scores_that_cannot_be_read_is_refused(
    client: httpx2.Client, job: Job, params: dict[str, str], says: str
) -> None:
    answer = client.get(f"/jobs/{job.id}/results", params=params)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def test_a_histogram_counts_each_score_on_its_side_of_every_threshold(
    client: httpx2.Client, store: HeldJobs
) -> None:
    # All numbers of two decimals, and what is next to them.
    scores = [number / 100 for number in range(101)]
    around = [near for score in scores for near in (math.nextafter(score, 0), score)]
    job = store_job(
        store,
        len(around) + 1,
        spec,
        lambda i: scored(*[around[i]] * 4) if i < len(around) else rejected(),
    )
    answer = client.get(f"/jobs/{job.id}/histogram").raise_for_status().json()
    assert answer["scored"] == len(around)
    assert answer["next_cursor"] is None
    assert list(answer["labels"]) == LABELS
    assert [one["threshold"] for one in answer["labels"].values()] == [*MODEL.thresholds]
    counts = answer["labels"]["city"]["counts"]
    assert len(counts) == 100
    for place, threshold in enumerate(scores[:-1]):
        assert sum(counts[place:]) == sum(score >= threshold for score in around)
    one = client.get(f"/jobs/{job.id}/histogram", params={"label": "trees"}).json()
    assert list(one["labels"]) == ["trees"]
    wrong = client.get(f"/jobs/{job.id}/histogram", params={"label": "moon"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "parameter_invalid")


def test_the_pages_of_a_histogram_add_up(store: HeldJobs, job: Job) -> None:
    def page(start: int, most_items: int) -> HistogramPage:
        return histogram_page(store.results(job, start), MODEL, [0, 3], most_items)

    whole, parts, start = page(0, COUNT), [], 0
    assert whole.next_cursor is None
    while True:
        parts.append(page(start, 60))
        if parts[-1].next_cursor is None:
            break
        start = cursors.index(parts[-1].next_cursor)
    assert len(parts) == 5
    assert sum(part.scored for part in parts) == whole.scored
    for label, found in whole.labels.items():
        counts = [part.labels[label].counts for part in parts]
        assert [sum(bins) for bins in zip(*counts, strict=True)] == found.counts


# Formats.


def test_pages_are_full_and_the_last_has_no_cursor(client: httpx2.Client, job: Job) -> None:
    found = pages(client, job, limit=50)
    assert [len(page) for page in found] == [50] * 5
    assert [item["index"] for page in found for item in page] == list(range(COUNT))
    assert [len(page) for page in pages(client, job, limit=125)] == [125, 125]
    assert [len(page) for page in pages(client, job)] == [100, 100, 50]


def test_a_page_shows_each_item_with_its_scores_or_its_error(
    client: httpx2.Client, job: Job
) -> None:
    good, bad = pages(client, job, limit=8)[0][2:4]
    assert good["scores"] == dict(zip(LABELS, result(2).scores or (), strict=True))
    assert good["columns"] == {"price": "2.50"}
    assert good["error"] is None
    assert bad["scores"] is bad["labels"] is None
    assert bad["error"] == {
        "code": "fetch_timeout",
        "stage": "fetch",
        "retryable": True,
        "detail": "no answer in 15 s",
    }


def test_lines_of_json_are_the_items_of_the_pages(client: httpx2.Client, job: Job) -> None:
    answer = read(client, job, format="jsonl")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == [item for page in pages(client, job) for item in page]


def test_a_csv_has_the_input_then_the_result(client: httpx2.Client, job: Job) -> None:
    header, *rows = table(client, job)
    assert header == [
        *("sku", "url", "price", "status"),
        *LABELS,
        *("labels", "error_code", "error_detail"),
    ]
    assert len(rows) == COUNT
    for index, row in enumerate(rows):
        assert row[:3] == [f"sku-{index}", f"https://h/{index}.jpg", f"{index}.50"]
        scores, rejection = result(index).scores, result(index).rejection
        if rejection:
            assert row[3:] == ["failed", "", "", "", "", "", rejection.code, rejection.detail]
        else:
            assert row[3] == "succeeded"
            assert [float(cell) for cell in row[4:8]] == list(scores or ())
            assert row[9:] == ["", ""]


def test_parquet_holds_what_the_csv_holds(client: httpx2.Client, job: Job) -> None:
    header, *rows = table(client, job)
    found = parquet(client, job)
    assert found.column_names == header
    assert found.num_rows == COUNT
    for row, cells in zip(rows, found.to_pylist(), strict=True):
        cells["labels"] = ";".join(cells["labels"] or ())
        assert row == ["" if cell is None else str(cell) for cell in cells.values()]
    assert str(found.schema.field("beach").type) == "double"
    assert found.column("beach").null_count == sum(
        result(index).scores is None for index in range(COUNT)
    )


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/jsonl", "application/jsonl"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/*, */*;q=0.1", "text/csv; charset=utf-8"),
        ("TEXT/CSV ; q=0.3 , application/json;q=0.2", "text/csv; charset=utf-8"),
        ("application/json;q=0, application/*", "application/x-ndjson"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
    ],
)
def test_accept_chooses_the_format(
    client: httpx2.Client, job: Job, accept: str, media_type: str
) -> None:
    answer = client.get(f"/jobs/{job.id}/results", headers={"accept": accept})
    assert answer.headers["content-type"] == media_type
    assert answer.headers["vary"] == "Accept"


def test_the_format_parameter_wins_over_accept(client: httpx2.Client, job: Job) -> None:
    url = f"/jobs/{job.id}/results"
    answer = client.get(url, params={"format": "csv"}, headers={"accept": "application/json"})
    assert answer.headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_download_has_a_file_name(client: httpx2.Client, job: Job, form: str) -> None:
    answer = read(client, job, format=form)
    assert answer.headers["content-disposition"] == f'attachment; filename="{job.id}.{form}"'
    assert "content-disposition" not in read(client, job, format="json").headers


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"format": "xlsx"}, "format"),
        ({"status": "running"}, "status"),
        ({"label": "dog"}, "beach, city, sunset, trees"),
        ({"label": ""}, "beach, city, sunset, trees"),
        ({"top_k": "0"}, "top_k"),
        ({"threshold": "1.1"}, "threshold"),
        ({"threshold": "nan"}, "threshold"),
        ({"tresholds": "0.5"}, "tresholds"),
        ({"merge": "children"}, "merge"),
        ({"limit": "1001"}, "limit"),
        ({"format": "csv", "limit": "10"}, "for pages"),
        ({"format": "jsonl", "cursor": "aW5kZXg6MTk="}, "for pages"),
    ],
)
def test_invalid_parameters_are_refused_with_a_reason(
    client: httpx2.Client, job: Job, params: dict[str, str], says: str
) -> None:
    answer = client.get(f"/jobs/{job.id}/results", params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "parameter_invalid")
    assert says in answer.json()["detail"]


def test_an_unknown_format_is_not_acceptable(client: httpx2.Client, job: Job) -> None:
    answer = client.get(f"/jobs/{job.id}/results", headers={"accept": "application/pdf"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    assert "text/csv" in answer.json()["detail"]


# Filters.


def expected(
    status: str | None = None,
    label: str | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
) -> list[tuple[int, dict[str, float] | None, list[str] | None]]:
    """Compute the selected results independently of the code."""
    found: list[tuple[int, dict[str, float] | None, list[str] | None]] = []
    for index in range(COUNT):
        scores = result(index).scores
        if scores is None:
            if status != "succeeded" and label is None:
                found.append((index, None, None))
            continue
        shown = dict(zip(LABELS, scores, strict=True))
        if top_k:
            best = sorted(shown, key=lambda name: (-shown[name], LABELS.index(name)))[:top_k]
            shown = {name: shown[name] for name in best}
        own = dict(zip(MODEL.labels, MODEL.thresholds, strict=True))
        least = own if threshold is None else dict.fromkeys(LABELS, threshold)
        labels = [name for name, score in shown.items() if score >= least[name]]
        if status != "failed" and (label is None or label in labels):
            found.append((index, shown, labels))
    return found


SELECTIONS: list[dict[str, Any]] = [
    {},
    {"status": "succeeded"},
    {"status": "failed"},
    {"label": "beach"},
    {"label": "trees", "threshold": 0.9},
    {"label": "sunset", "top_k": 1, "threshold": 0},
    {"top_k": 2},
    {"top_k": 99, "threshold": 0.25},
    {"status": "succeeded", "label": "city", "top_k": 2, "threshold": 0.4},
    {"status": "failed", "label": "city"},
]


@pytest.mark.parametrize("params", SELECTIONS, ids=str)
def test_filters_apply_to_all_pages_and_formats(
    client: httpx2.Client, job: Job, params: dict[str, Any]
) -> None:
    wanted = expected(**params)
    found = pages(client, job, limit=7, **params)
    assert [len(page) for page in found[:-1]] == [7] * (len(found) - 1)
    assert len(found[-1]) or not wanted, "an empty last page"
    items = [item for page in found for item in page]
    shown = [
        (item["index"], item["scores"] and list(item["scores"].items()), item["labels"])
        for item in items
    ]
    assert shown == [
        (index, scores and list(scores.items()), labels) for index, scores, labels in wanted
    ]
    lines = read(client, job, format="jsonl", **params).text.splitlines()
    assert [json.loads(line) for line in lines] == items
    rows = table(client, job, **params)[1:]
    assert [row[0] for row in rows] == [f"sku-{index}" for index, _, _ in wanted]
    assert [row[8] for row in rows] == [";".join(labels or ()) for _, _, labels in wanted]
    for row, (_, scores, _) in zip(rows, wanted, strict=True):
        assert row[4:8] == [str((scores or {}).get(label, "")) for label in LABELS]
    assert parquet(client, job, **params).column("sku").to_pylist() == [row[0] for row in rows]


def test_other_thresholds_need_no_inference(client: httpx2.Client) -> None:
    files = [("files", (f"{seed}.jpg", jpeg(seed))) for seed in range(5)]
    job = wait_done(client, client.post("/jobs", files=files).json())
    for threshold in (0, 0.001, 0.5, 1):
        for item in read(client, job, threshold=threshold).json()["items"]:
            scores = item["scores"]
            assert item["labels"] == [name for name in scores if scores[name] >= threshold]
            assert scores == job["results"][item["index"]]["scores"]
    after = client.get(f"/jobs/{job['id']}").json()
    assert (after["counts"], after["finished_at"]) == (job["counts"], job["finished_at"])


def test_a_page_reads_a_bounded_number_of_items(client: httpx2.Client, store: HeldJobs) -> None:
    failed = {0, 30_000, 49_999}
    good, bad = scored(0.1, 0.2, 0.3, 0.4), rejected()
    long = store_job(
        store,
        50_000,
        lambda index: ItemSpec(str(index), "https://h/"),
        lambda index: bad if index in failed else good,
        chunk_items=1000,
    )
    found = pages(client, long, status="failed", limit=2)
    assert [[item["index"] for item in page] for page in found] == [[0], [30_000], [49_999]]


# Tables.


def submit(client: httpx2.Client, text: str, **params: str) -> dict[str, Any]:
    """Submit a CSV whose URLs need not be reachable, and wait for the end."""
    answer = client.post(
        "/jobs", content=text.encode(), params=params, headers={"content-type": "text/csv"}
    )
    assert answer.status_code == 202, answer.text
    return wait_done(client, answer.json())


def test_a_table_begins_with_the_submitted_csv_unchanged(client: httpx2.Client) -> None:
    rows = [
        ["größe", "link", "sku", "", "note"],
        ["-1.5", "http://127.0.0.2/1.jpg", "ä-1", "x", 'two\nlines, "quoted"'],
        ["+3e-2", "http://127.0.0.2/2.jpg", "日本-2", "", " =1 "],
        ["-50%", "http://127.0.0.2/3.jpg", "🙂", "a;b", ""],
    ]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    job = submit(client, text.getvalue(), url_column="link", id_column="sku")
    found = table(client, job)
    assert [row[:5] for row in found] == rows
    assert found[0][5:] == ["status", *LABELS, "labels", "error_code", "error_detail"]
    assert {row[10] for row in found[1:]} == {""}
    assert {row[11] for row in found[1:]} == {"fetch_blocked_address"}
    columns = parquet(client, job).to_pydict()
    assert [list(cells) for cells in zip(*(columns[name] for name in rows[0]), strict=True)] == (
        rows[1:]
    )


def test_spreadsheet_formulas_are_escaped_in_csv_only(
    client: httpx2.Client, store: HeldJobs
) -> None:
    hot = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "-", '=HYPERLINK("http://x")']
    hot += [
        "＝1+1",
        "＋1",
        "－1.5",
        "＠SUM(A1)",
        "\ufeff=1+1",
        "\ufeff\ufeff=1",
        "\u200b＝1",
        "\0=1",
    ]
    hot.append("+" + "1" * 100_000 + "x")  # an expression quadratic in digits takes five minutes
    cool = ["-1.5", "+1.5e3", "-.5", "-7.", "-7%", "a=b", "'=1", "1-1", "", "−1+1", "\ufeff1"]
    cells = hot + cool
    job = store_job(
        store,
        len(cells),
        lambda index: ItemSpec(f"@{index}", "https://h/", columns={"=evil()": cells[index]}),
        lambda _: scored(0, 0, 0, 0),
        csv=CsvShape(("=evil()", "id", "url"), "url", "id"),
    )
    header, *rows = table(client, job)
    assert header[0] == "'=evil()"
    assert [row[0] for row in rows] == [f"'{cell}" for cell in hot] + cool
    assert [row[1] for row in rows] == [f"'@{index}" for index in range(len(cells))]
    columns = parquet(client, job).to_pydict()
    assert columns["=evil()"] == cells
    lines = read(client, job, format="jsonl").text.splitlines()
    assert [json.loads(line)["columns"]["=evil()"] for line in lines] == cells


def test_a_byte_order_mark_within_a_row_hides_no_formula(client: httpx2.Client) -> None:
    job = submit(
        client,
        "k,\ufeff=evil(),url\na,\ufeff=1,http://127.0.0.2/\nb,\u202e\u2066=1,http://h/\n",
    )
    header, *rows = table(client, job)
    assert header[1] == "'\ufeff=evil()"
    assert [row[1] for row in rows] == ["'\ufeff=1", "'\u202e\u2066=1"]


def test_an_error_detail_is_escaped_too(client: httpx2.Client, store: HeldJobs) -> None:
    evil = Rejection(TIMEOUT.code, TIMEOUT.stage, True, "=cmd|' /C calc'!A0")
    job = store_job(store, 1, spec, lambda _: rejected(evil))
    assert table(client, job)[1][-1] == "'=cmd|' /C calc'!A0"


def test_input_columns_named_like_result_columns_keep_their_name(client: httpx2.Client) -> None:
    job = submit(client, "url,status,beach,beach_\nhttp://127.0.0.2/,sold,yes,no\n")
    header, row = table(client, job)
    assert header[:6] == ["url", "status", "beach", "beach_", "status_", "beach__"]
    assert row[:5] == ["http://127.0.0.2/", "sold", "yes", "no", "failed"]
    assert parquet(client, job).column("status").to_pylist() == ["sold"]


def test_columns_of_items_without_a_table_are_in_order_of_first_use(
    client: httpx2.Client,
) -> None:
    items = [
        {"url": "http://127.0.0.2/a", "columns": {"zoo": "1"}},
        {"url": "http://127.0.0.2/b"},
        {"url": "http://127.0.0.2/c", "id": "c", "columns": {"ark": "2", "zoo": "3", "id": "4"}},
    ]
    job = wait_done(client, client.post("/jobs", json={"items": items}).json())
    header, *rows = table(client, job)
    assert header[:6] == ["id_", "url", "zoo", "ark", "id", "status"]
    assert [row[:5] for row in rows] == [
        ["0", "http://127.0.0.2/a", "1", "", ""],
        ["1", "http://127.0.0.2/b", "", "", ""],
        ["c", "http://127.0.0.2/c", "3", "2", "4"],
    ]
    assert parquet(client, job).column("ark").to_pylist() == [None, None, 2]


def test_a_submitted_column_of_numbers_is_numeric_in_parquet(client: httpx2.Client) -> None:
    header = "id,url,count,price,code,none"
    rows = ("1,{},3,9.50,007,", "2,{}x,,2,8,", "3,{},12,1,9,")
    body = "\n".join((header, *rows)).replace("{}", "http://127.0.0.2/")
    job = submit(client, body, id_column="id")
    wanted = {"id": "string", "count": "int64", "price": "double", "code": "string"}
    retry = wait_done(client, client.post(f"/jobs/{job['id']}/retry").json())
    for found in (
        parquet(client, job),
        parquet(client, job, status="succeeded"),
        parquet(client, retry, search="0.2/x"),
        parquet(client, retry, merge="parents"),
    ):
        assert {name: str(found.schema.field(name).type) for name in wanted} == wanted
    assert found.column("count").to_pylist() == [3, None, 12]
    assert found.column("price").to_pylist() == [9.5, 2, 1]
    assert found.column("none").to_pylist() == ["", "", ""]
    assert [row[2:4] for row in table(client, job)[1:]] == [["3", "9.50"], ["", "2"], ["12", "1"]]


def test_uploads_are_named_by_their_file(client: httpx2.Client) -> None:
    files = [("files", ("a b.jpg", jpeg(1))), ("files", ("ü.jpg", jpeg(2)))]
    job = wait_done(client, client.post("/jobs", files=files).json())
    header, *rows = table(client, job)
    assert header[:3] == ["id", "filename", "status"]
    assert [row[:3] for row in rows] == [
        ["a b.jpg", "a b.jpg", "succeeded"],
        ["ü.jpg", "ü.jpg", "succeeded"],
    ]


def test_a_draft_of_urls_and_files_says_where_each_came_from(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()["links"]["self"]
    items = [{"id": "one", "url": "http://127.0.0.2/x"}]
    assert client.post(f"{draft}/items", json={"items": items}).status_code == 200
    files = [("files", ("two.jpg", jpeg(1)))]
    assert client.post(f"{draft}/items", files=files).status_code == 200
    assert table(client, {"id": draft.removeprefix("/jobs/")}) == [
        ["id", "url", "status", *LABELS, "labels", "error_code", "error_detail"]
    ]
    job = wait_done(client, client.post(f"{draft}/submit").json())
    header, *rows = table(client, job)
    assert header[:2] == ["id", "source"]
    assert [row[:2] for row in rows] == [["one", "http://127.0.0.2/x"], ["two.jpg", "two.jpg"]]


def test_too_many_different_columns_are_refused_by_row(client: httpx2.Client) -> None:
    wide = {f"c{number}": "" for number in range(999)}
    items = [{"url": "http://h/", "columns": columns} for columns in (wide, {"a": ""}, {"b": ""})]
    problem = client.post("/jobs", json={"items": items}).json()
    assert problem["code"] == "items_refused"
    assert [found["index"] for found in problem["problems"]] == [2]
    assert "1000 columns" in problem["problems"][0]["detail"]


# While a job runs, or when it is gone.


def begin(
    store: HeldJobs, *, held: int = 20, max_failures: int | None = None
) -> tuple[Job, list[Claim]]:
    """Begin a job of 20 chunks of two items, the first ones claimed by the test."""
    job_id = new_job_id()
    for chunk in range(20):
        specs = [ItemSpec(str(2 * chunk + at), "http://127.0.0.2/") for at in range(2)]
        store.put_chunk(job_id, chunk, specs)
    new_job = NewJob(job_id, ANYONE, MODEL, ttl_s=600)
    store.submit(new_job, Shape(Lane.BULK, 40, 2, max_failures))
    claims = [store.claim(job_id, chunk) for chunk in range(held)]
    return store.job(job_id), claims


def test_a_finished_part_is_read_while_the_rest_runs(
    client: httpx2.Client, store: HeldJobs
) -> None:
    job, claims = begin(store)
    for chunk in (0, 8, 9):
        store.commit(claims[chunk], [scored(0, 0, 0, chunk / 10), rejected()])
    assert store.job(job.id).status == "running"
    finished = [0, 1, 16, 17, 18, 19]
    assert [item["index"] for page in pages(client, job, limit=4) for item in page] == finished
    assert [row[0] for row in table(client, job)[1:]] == [str(index) for index in finished]
    assert parquet(client, job, status="failed").num_rows == 3
    store.erase(job.id)


@pytest.mark.parametrize("ends", ["cancelled", "failed", "succeeded", "partially_succeeded"])
def test_results_are_read_in_every_final_status(
    client: httpx2.Client, store: HeldJobs, ends: str
) -> None:
    job, claims = begin(
        store,
        held=3 if ends == "cancelled" else 20,
        max_failures=2 if ends == "failed" else None,
    )
    if ends == "cancelled":
        store.cancel(job.id)
    good, bad = scored(0.1, 0.2, 0.3, 0.4), rejected()
    for claim in claims[:2]:
        store.commit(claim, [good, good if ends == "succeeded" else bad])
    for claim in claims[2:]:
        store.commit(claim, [good, bad if ends == "failed" else good])
    now = store.job(job.id)
    assert now.status == ends
    finished = now.counts.finished
    assert finished == {"cancelled": 6, "failed": 6}.get(ends, 40)
    assert sum(len(page) for page in pages(client, job, limit=7)) == finished
    assert len(table(client, job)) == 1 + finished
    assert parquet(client, job).num_rows == finished
    assert len(read(client, job, format="jsonl").text.splitlines()) == finished


def test_a_job_without_results_gives_an_empty_table(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()
    assert read(client, draft).json() == {"items": []}
    assert len(table(client, draft)) == 1
    assert read(client, draft, format="jsonl").content == b""
    assert parquet(client, draft).num_rows == 0


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "parquet"])
def test_results_of_an_unknown_job_are_a_404(client: httpx2.Client, form: str) -> None:
    answer = client.get("/jobs/job_x/results", params={"format": form})
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_a_download_stops_when_its_job_is_erased(client: httpx2.Client, store: HeldJobs) -> None:
    wide = "x" * 1000
    job = store_job(
        store,
        30_000,
        lambda index: ItemSpec(str(index), "https://h/", columns={"wide": wide}),
        lambda _: scored(0, 0, 0, 0),
        csv=CsvShape(("url", "wide"), "url", None),
        chunk_items=1000,
    )
    with client.stream("GET", f"/jobs/{job.id}/results", params={"format": "csv"}) as answer:
        blocks = answer.iter_raw()
        next(blocks)
        store.erase(job.id)
        with pytest.raises(httpx2.RemoteProtocolError):
            list(blocks)


# Size.


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_hundred_thousand_results_stream_in_little_memory(
    client: httpx2.Client, stack: Stack, hundred_thousand: Job, job: Job, form: str
) -> None:
    read(client, job, format=form)
    assert stack.api_pid is not None
    before = most = resident_bytes(stack.api_pid)
    params = {"format": form}
    size = 0
    with client.stream("GET", f"/jobs/{hundred_thousand.id}/results", params=params) as answer:
        for block in answer.iter_raw():
            size += len(block)
            most = max(most, resident_bytes(stack.api_pid))
    assert size > (2_000_000 if form == "parquet" else 8_000_000)
    assert most - before < 50_000_000


@pytest.fixture(scope="module")
def hundred_thousand(store: HeldJobs) -> Job:
    return store_job(
        store,
        100_000,
        lambda index: ItemSpec(uuid.uuid4().hex, f"https://h/{index}.jpg"),
        lambda index: scored(index / 1e6, 0.25, 0.5, 0.75),
        csv=CsvShape(("sku", "url"), "url", "sku"),
        chunk_items=500,
    )


def test_the_first_bytes_are_sent_before_most_results_are_read() -> None:
    count = 0

    def results() -> Iterator[StoredResult]:
        nonlocal count
        while True:
            yield StoredResult(count, spec(count), scored(0, 0, 0, 1), 1)
            count += 1

    selection = Selection(MODEL)
    next(csv_table(Table(SHAPE, [ScoreColumns(MODEL.labels)]), selection.views(results())))
    assert count == 0
    next(jsonl(selection.views(results())))
    assert count < 1000


def test_the_api_starts_without_pyarrow_and_reports_when_it_is_missing() -> None:
    script = """
import sys
import api.main
assert not [name for name in sys.modules if name.partition(".")[0] in ("pyarrow", "numpy")]
sys.modules["pyarrow"] = None
from api.results import cursors
from api.results.downloads import parquet
from api.results.selection import ScoreColumns
from api.results.table import Layout, Table
from worker.jobs.errors import FormatUnavailable
try:
    parquet(Table(Layout().shape(), [ScoreColumns(["beach"])]), iter(()))
except FormatUnavailable as error:
    print(error)
"""
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "piqueue-server[parquet]" in answer.stdout


def test_the_document_shows_every_format(client: httpx2.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/jobs/{job_id}/results"]["get"]
    content = operation["responses"]["200"]["content"]
    assert set(content) == {
        "application/json",
        "application/x-ndjson",
        "application/jsonl",
        "text/csv",
        "application/vnd.apache.parquet",
    }
    assert "ResultsPage" in content["application/json"]["schema"]["$ref"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert names >= {"format", "cursor", "limit", "status", "label", "top_k", "threshold", "merge"}
    assert {"404", "406", "409", "422", "501"} <= set(operation["responses"])


def test_the_examples_of_the_document_match_the_schemas() -> None:
    page = RESULTS["application/json"]["examples"]["page"]["value"]
    parsed = ResultsPage.model_validate(page)
    assert json.loads(parsed.model_dump_json(exclude_unset=True)) == page
    assert set(page["items"][0]) == set(type(parsed.items[0]).model_fields)
    JobOut.model_validate(RETRIED["application/json"]["example"])
