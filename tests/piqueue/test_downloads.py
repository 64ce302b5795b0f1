"""Downloads of results whose connection breaks."""

import io
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx2
import pytest
from aiohttp import web

from piqueue import AsyncClient, Client, PiqueueApiError
from piqueue.cli import main
from piqueue.types import ResultsFormat
from scripts.local.stack import Stack
from tests.api.stored_jobs import ledger, rejected, scored, store_job
from tests.piqueue.cutting_proxy import CuttingProxy
from tests.worker.fetching.site import Answer, Site
from worker.jobs.items import ItemSpec
from worker.jobs.record import CsvShape, Job

ROWS = 5000
CUT_BYTES = 100_000


@pytest.fixture(scope="module")
def job(stack: Stack) -> Iterator[Job]:
    """Give a finished job whose rows have line breaks, quotes and letters of several bytes."""

    def spec(index: int) -> ItemSpec:
        columns = {"note": f'"{index}"\nä€😀', "more": "x" * (index % 50)}
        return ItemSpec(str(index), f"http://127.0.0.1/{index}.jpg", columns=columns)

    with ledger(stack.redis_url) as store:
        yield store_job(
            store,
            ROWS,
            spec,
            lambda index: scored(index / ROWS, 0.1, 0.2, 0.3) if index % 7 else rejected(),
            csv=CsvShape(("id", "url", "note", "more"), "url", "id"),
        )


def whole(stack: Stack, job: Job, form: str) -> httpx2.Response:
    params = {"format": form, "status": "succeeded"}
    url = f"{stack.url}/jobs/{job.id}/results"
    return httpx2.get(url, params=params, timeout=60).raise_for_status()


def check_parts(proxy: CuttingProxy, expected: bytes) -> None:
    """Check that it took several connections, and that hardly a byte was sent twice."""
    assert len(proxy.offsets) > len(expected) // CUT_BYTES >= 3
    assert proxy.offsets == sorted(proxy.offsets)
    assert len({*proxy.offsets}) == len(proxy.offsets)
    assert len(expected) < proxy.passed_bytes < 1.5 * len(expected)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_download_goes_on_where_it_broke(stack: Stack, job: Job, form: ResultsFormat) -> None:
    expected, target = whole(stack, job, form).content, io.BytesIO(b"before" * 1_000_000)
    # Less patience than the pauses would take, if each break counted.
    with CuttingProxy(stack.url, CUT_BYTES) as proxy, Client(proxy.url, patience_s=1) as client:
        client.download(job.id, target, form, status="succeeded")
    assert target.getvalue() == expected
    check_parts(proxy, expected)


def test_the_asynchronous_client_goes_on_too(stack: Stack, job: Job) -> None:
    expected, target = whole(stack, job, "csv").content, io.BytesIO()

    async def run(url: str) -> None:
        async with AsyncClient(url, patience_s=1) as client:
            await client.download(job.id, target, "csv", status="succeeded")

    with CuttingProxy(stack.url, CUT_BYTES) as proxy:
        anyio.run(run, proxy.url)
    assert target.getvalue() == expected
    check_parts(proxy, expected)


def test_the_command_goes_on_too(stack: Stack, job: Job, tmp_path: Path) -> None:
    expected, output = whole(stack, job, "csv").content, tmp_path / "results.csv"
    with CuttingProxy(stack.url, CUT_BYTES) as proxy:
        arguments = ["results", job.id, "--status", "succeeded", "--url", proxy.url]
        assert main([*arguments, "-o", str(output)]) == 0
    assert output.read_bytes() == expected
    check_parts(proxy, expected)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_each_offset_gives_the_rest_of_the_same_bytes(stack: Stack, job: Job, form: str) -> None:
    answer = whole(stack, job, form)
    expected, tag = answer.content, answer.headers["etag"]
    url = f"{stack.url}/jobs/{job.id}/results"
    params = {"format": form, "status": "succeeded"}
    for offset in (0, 1, 777, len(expected) // 2, len(expected) - 1, len(expected), 10**9):
        # As a proxy that compresses changes it.
        rest = httpx2.get(
            url, params={**params, "offset": offset}, headers={"If-Match": f"W/{tag}"}, timeout=60
        )
        assert (rest.status_code, rest.headers["etag"]) == (200, tag)
        assert rest.content == expected[offset:]


def test_another_download_has_another_tag(stack: Stack, job: Job) -> None:
    url = f"{stack.url}/jobs/{job.id}/results"
    queries = ["format=csv", "format=jsonl", "format=csv&top_k=1", "format=csv&label=beach"]
    with httpx2.Client(timeout=60) as client:
        tags = [client.get(f"{url}?{query}").headers["etag"] for query in queries]
        assert len({*tags}) == len(tags)
        changed = client.get(f"{url}?format=csv&offset=5", headers={"If-Match": tags[1]})
        assert (changed.status_code, changed.json()["code"]) == (412, "results_changed")
        for query in ("format=json&offset=5", "format=parquet&offset=5", "format=csv&offset=-1"):
            assert client.get(f"{url}?{query}").status_code == 422


def test_a_download_of_a_running_job_has_no_tag(stack: Stack) -> None:
    with httpx2.Client(base_url=stack.url, timeout=60) as client:
        draft = client.post("/jobs", json={"draft": True}).json()
        answer = client.get(f"{draft['links']['results']}?format=csv")
        assert "etag" not in answer.headers
        refused = client.get(f"{draft['links']['results']}?format=csv&offset=1")
        assert refused.status_code == 422
        assert "done" in refused.json()["detail"]


def test_results_that_changed_are_downloaded_from_the_beginning() -> None:
    sent: list[tuple[str, str | None]] = []

    async def results(request: web.BaseRequest) -> web.StreamResponse:
        sent.append((request.query_string, request.headers.get("If-Match")))
        if len(sent) == 1:
            headers = {"ETag": '"old"', "Content-Length": "100"}
            answer = web.StreamResponse(headers=headers)
            await answer.prepare(request)
            await answer.write(b"old")
            assert request.transport is not None
            request.transport.close()
            return answer
        if request.headers.get("If-Match"):
            body = {
                "code": "results_changed",
                "detail": "from the beginning",
                "title": "",
                "status": 412,
            }
            return web.json_response({"type": "", **body}, status=412)
        return web.Response(body=b"new results", headers={"ETag": '"new"'})

    answers: dict[str, Answer] = {"/jobs/job_1/results": results}
    target = io.BytesIO()
    with Site(answers) as site, Client(site.url("")) as client:
        client.download("job_1", target, "csv")
    assert target.getvalue() == b"new results"
    assert sent == [("format=csv", None), ("format=csv&offset=3", '"old"'), ("format=csv", None)]


def test_a_download_that_never_advances_runs_out_of_patience(stack: Stack, job: Job) -> None:
    with (
        CuttingProxy(stack.url, 200) as proxy,
        Client(proxy.url, patience_s=1) as client,
        pytest.raises(PiqueueApiError) as caught,
    ):
        client.download(job.id, io.BytesIO(), "csv")
    assert caught.value.code == "unreachable"
