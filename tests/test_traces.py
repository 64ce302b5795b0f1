"""One job through a real API and worker is one trace at a real collector, or none at all."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from redis import Redis

from scripts.local.stack import ROOT, Stack, listenable_port
from tests.api.polling import wait_done
from tests.api.stored_jobs import MODEL as SCENES
from tests.browser import unavailable
from tests.collector import Collector, Span
from tests.conftest import STACK_ENV
from tests.documents import Shell, block_of
from tests.pictures import jpeg
from tests.worker.fetching.site import Site
from tests.worker.jobs.ledger.test_store import MODEL, claim, recover_until_due
from tests.worker.jobs.ledger.test_store import submit as store_job
from worker.fetching.s3 import S3Fetcher
from worker.jobs import traces
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.store import JobStore
from worker.jobs.record import Lane, new_job_id
from worker.jobs.settings import load_settings
from worker.jobs.traces import CHUNKS_IN_TRACE, span, start_traces, stop_traces

CALLER_TRACE, CALLER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
DEADLINE_S = 60
SECRET = "pl4nted"
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Run a collector for the tests of this module."""
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the traced stack, where its logs are."""
    return tmp_path_factory.mktemp("traced")


@pytest.fixture(scope="module")
def traced_stack(collector: Collector, folder: Path) -> Iterator[Stack]:
    """Run a stack whose spans go to the collector."""
    with Stack(folder, env={**STACK_ENV, **collector.env, "PIQUEUE_CHUNK_ITEMS": "2"}) as stack:
        yield stack


@pytest.fixture
def traced(traced_stack: Stack) -> Iterator[httpx2.Client]:
    """Give a client of that stack."""
    with httpx2.Client(base_url=traced_stack.url, timeout=60) as client:
        yield client


def caller(
    flags: str = "01", trace_id: str = CALLER_TRACE, span_id: str = CALLER_SPAN
) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{span_id}-{flags}"}


def submit(
    client: httpx2.Client, count: int, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    files = [("files", (f"{seed}.jpg", jpeg(seed))) for seed in range(count)]
    job = client.post("/jobs", files=files, headers=headers).raise_for_status().json()
    return wait_done(client, job)


def until(collector: Collector, ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline, Counter(span.name for span in collector.spans)
        time.sleep(0.02)


def of_job(collector: Collector, name: str, job_id: str) -> list[Span]:
    return [span for span in collector.named(name) if span.attributes.get("job_id") == job_id]


def request_of(collector: Collector, job_id: str) -> Span:
    """Wait for the span of the request that made a job."""
    until(collector, lambda: of_job(collector, "submit", job_id))
    parent_id = of_job(collector, "submit", job_id)[0].parent_id
    found: list[Span] = []

    def arrived() -> bool:
        found.extend(span for span in list(collector.spans) if span.span_id == parent_id)
        return bool(found)

    until(collector, arrived)
    return found[0]


def test_a_job_is_one_trace_from_the_request_to_each_stage(
    traced: httpx2.Client, collector: Collector
) -> None:
    async def picture(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=jpeg(7))

    with Site({"/1.jpg": picture}) as site:
        urls = [site.url(f"/1.jpg?{SECRET}=1"), site.url("/text"), site.url(f"/1.jpg?{SECRET}=2")]
        query = {"metadata": json.dumps({"token": SECRET})}
        posted = traced.post(
            "/jobs",
            params=query,
            content="url\n" + "\n".join(urls),
            headers={"content-type": "text/csv", **caller()},
        )
        job = wait_done(traced, posted.raise_for_status().json())
    assert job["counts"]["succeeded"] == 2
    until(collector, lambda: len(of_job(collector, "chunk", job["id"])) == 3)

    request = request_of(collector, job["id"])
    assert (request.name, request.service) == ("POST /jobs", "piqueue-api")
    assert (request.trace_id, request.parent_id) == (CALLER_TRACE, CALLER_SPAN)
    (submitting,) = of_job(collector, "submit", job["id"])
    assert submitting.attributes["items"] == 3
    chunks = of_job(collector, "chunk", job["id"])
    queued = of_job(collector, "queue", job["id"])
    assert sorted(span.attributes["chunk_index"] for span in chunks) == [0, 1, 2]
    assert sorted(span.attributes["chunk_index"] for span in queued) == [0, 1, 2]
    spans = [span for span in list(collector.spans) if span.trace_id == CALLER_TRACE]
    for chunk in chunks:
        assert chunk.service == "piqueue-worker"
        assert chunk.parent_id == submitting.span_id
        assert chunk.attributes["model"] == "scenes@5"
        assert (chunk.attributes["outcome"], chunk.attributes["items"]) == ("committed", 1)
        stages = Counter(span.name for span in spans if span.parent_id == chunk.span_id)
        scored = "failed.not_an_image" not in chunk.attributes
        assert stages == {
            "fetch": 1,
            "decode": 1,
            "commit": 1,
            **({"inference": 1} if scored else {}),
        }
    assert {span.parent_id for span in queued} == {submitting.span_id}
    for wait in queued:
        (chunk,) = (
            span
            for span in chunks
            if span.attributes["chunk_index"] == wait.attributes["chunk_index"]
        )
        assert wait.start_ns <= wait.end_ns <= chunk.start_ns
    assert [chunk.attributes.get("failed.not_an_image") for chunk in chunks].count(1) == 1
    for stage in ("fetch", "inference"):
        (first, *_) = (span for span in spans if span.name == stage)
        assert first.start_ns < first.end_ns
    assert {span.attributes["outcome"] for span in spans if span.name == "fetch"} == {"fetched"}
    assert not [span.text for span in list(collector.spans) if SECRET in span.text]


@pytest.mark.parametrize(
    "sent",
    [
        {},
        caller("01", "0" * 32),
        {"traceparent": "00-short-01"},
        caller(span_id="0" * 16),
    ],
)
def test_without_a_valid_traceparent_a_request_begins_a_trace_of_its_own(
    traced: httpx2.Client, collector: Collector, sent: dict[str, str]
) -> None:
    job = submit(traced, 1, sent)
    request = request_of(collector, job["id"])
    assert request.parent_id == ""
    assert request.trace_id not in ("0" * 32, CALLER_TRACE)
    until(collector, lambda: of_job(collector, "chunk", job["id"]))
    assert {span.trace_id for span in of_job(collector, "chunk", job["id"])} == {request.trace_id}


def test_a_trace_that_the_caller_does_not_sample_is_not_sent(
    traced: httpx2.Client, collector: Collector
) -> None:
    count = 2 * (CHUNKS_IN_TRACE + 1)
    unsampled = submit(traced, count, caller("00", span_id="e" * 16))
    after = submit(traced, 1)
    request_of(collector, after["id"])
    until(collector, lambda: of_job(collector, "chunk", after["id"]))
    for name in ("submit", "queue", "chunk"):
        assert not of_job(collector, name, unsampled["id"])
    assert "e" * 16 not in {span.parent_id for span in collector.named("POST /jobs")}


def test_the_later_chunks_of_a_big_job_have_their_own_traces_linked_to_its_request(
    traced: httpx2.Client, collector: Collector
) -> None:
    chunks = CHUNKS_IN_TRACE + 13
    job = submit(traced, 2 * chunks)
    until(collector, lambda: len(of_job(collector, "chunk", job["id"])) == chunks)
    until(collector, lambda: of_job(collector, "submit", job["id"]))
    (submitting,) = of_job(collector, "submit", job["id"])
    seen = of_job(collector, "chunk", job["id"])
    joined = [span for span in seen if span.trace_id == submitting.trace_id]
    linked = [span for span in seen if span.links == [submitting.span_id]]
    assert sorted(span.attributes["chunk_index"] for span in joined) == list(range(CHUNKS_IN_TRACE))
    assert len(linked) == len({span.trace_id for span in linked}) == chunks - CHUNKS_IN_TRACE
    assert {span.parent_id for span in linked} == {""}


def lines(log: Path) -> list[dict[str, Any]]:
    """Read the lines of a log that are written whole."""
    whole = log.read_text().split("\n")[:-1]
    return [json.loads(line) for line in whole if line.startswith("{")]


def test_log_lines_have_the_job_id_and_trace_id_and_those_of_the_api_the_request_id(
    traced: httpx2.Client, collector: Collector, folder: Path
) -> None:
    trace_id = "1" * 32
    job = submit(traced, 1, {"X-Request-ID": "joined.1", **caller(trace_id=trace_id)})

    def committed() -> list[dict[str, Any]]:
        return [
            line
            for line in lines(folder / "worker-1.log")
            if line.get("job_id") == job["id"] and line["event"] == "chunk_committed"
        ]

    until(collector, committed)
    (submitted,) = (
        line
        for line in lines(folder / "api.log")
        if line.get("job_id") == job["id"] and line["event"] == "job_submitted"
    )
    assert submitted["request_id"] == "joined.1"
    assert submitted["trace_id"] == committed()[0]["trace_id"] == trace_id

    def answered() -> list[dict[str, Any]]:
        return [
            line
            for line in lines(folder / "api.log")
            if line["event"] == "request" and line["request_id"] == "joined.1"
        ]

    until(collector, answered)
    assert answered()[0]["trace_id"] == trace_id


def test_the_documented_commands_find_the_work_for_a_request(
    traced: httpx2.Client, collector: Collector, folder: Path, tmp_path: Path
) -> None:
    if shutil.which("jq") is None:
        unavailable("the commands of docs/traces.md that read logs: install jq")
    job = submit(traced, 3, {"X-Request-ID": "found.1"})
    (tmp_path / "api.log").symlink_to(folder / "api.log")
    (tmp_path / "worker.log").symlink_to(folder / "worker-1.log")
    of_request, of_job = block_of("docs/traces.md", "jq ").text.splitlines()
    shell = Shell(tmp_path)
    assert shell.run(of_request.replace("…", "found.1")) == f"{job['id']}\n"
    of_job = of_job.replace("job_…", job["id"])
    until(collector, lambda: "chunk_committed" in shell.run(of_job))


def test_a_chunk_that_is_tried_again_has_the_trace_of_its_job(redis_client: Redis) -> None:
    store, sent = JobStore(redis_client), caller()["traceparent"]
    job = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600, traceparent=sent)
    store.put_chunk(job.id, 0, [ItemSpec("one", "http://h/1")])
    store.submit(job, Shape(Lane.BULK, 1, 10))
    assert claim(store, job.id, 0, lease_s=0.001).traceparent == sent
    recover_until_due(store)
    assert claim(store, job.id, 0).traceparent == sent
    untraced, _ = store_job(store, total=1)
    assert claim(store, untraced, 0).traceparent is None


def test_a_fetch_from_s3_is_in_the_trace_of_its_chunk(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in collector.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(traces, "FLUSH_S", DEADLINE_S)
    settings = load_settings(s3_fetch_buckets=("ours",), s3_endpoint_url=NOWHERE)
    fetcher = S3Fetcher(settings)
    start_traces("piqueue-test")
    try:
        with span("s3"), fetcher.fetching(["s3://theirs/1", "s3://theirs/2"]) as outcomes:
            assert len(list(outcomes)) == 2
    finally:
        stop_traces()
        fetcher.close()
    (outer,) = collector.named("s3")
    below = [seen for seen in list(collector.spans) if seen.parent_id == outer.span_id]
    fetched = [(seen.name, seen.attributes["outcome"]) for seen in below]
    assert fetched == [("fetch", "fetch_blocked_address")] * 2


def test_celerys_log_line_of_a_failed_chunk_has_the_job_id(
    traced_stack: Stack, folder: Path
) -> None:
    with Redis.from_url(traced_stack.redis_url) as redis:
        store = JobStore(redis)
        job = NewJob(new_job_id(), "anyone", SCENES, ttl_s=3600)
        redis.hset(f"piqueue:{{{job.id}}}:in", "0", "not packed by us")
        store.submit(job, Shape(Lane.BULK, 1, 10))
        deadline = time.monotonic() + DEADLINE_S
        while not (
            failed := [
                line for line in lines(folder / "worker-1.log") if line.get("job_id") == job.id
            ]
        ):
            assert time.monotonic() < deadline, "no log line"
            time.sleep(0.02)
        store.erase(job.id)
    assert (failed[0]["level"], failed[0]["chunk_index"]) == ("error", 0)
    assert "zlib.error" in failed[0]["exception"]


def test_an_unavailable_collector_fails_no_job_and_stops_no_process(tmp_path: Path) -> None:
    port = listenable_port("127.0.0.1", 0)
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_BSP_MAX_QUEUE_SIZE": "8",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
    }
    with Stack(tmp_path, env=env) as stack, httpx2.Client(base_url=stack.url, timeout=60) as client:
        assert submit(client, 12)["counts"]["succeeded"] == 12
        assert submit(client, 12)["counts"]["succeeded"] == 12
        pids = [stack.api_pid, *stack.workers]
        # The worker logs it and continues.
        deadline = time.monotonic() + DEADLINE_S
        while "exporting spans" not in (tmp_path / "worker-1.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert pids == [stack.api_pid, *stack.workers]


ASK = """
import sys
import api.main, worker.scoring.runtime, worker.jobs.traces as traces
from worker.jobs.settings import load_settings
traces.start_traces("test")
api.main.create_app(load_settings())
with traces.span("one"), traces.chunk_span(None, 1.0, "job", 0):
    assert traces.traceparent() is None
print([name for name in sys.modules if name.startswith(PARTS)])
"""
# Other parts of OpenTelemetry are imported by FastAPI, and by redis-py where they are installed.
PARTS = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto")


def run(program: str, **env: str) -> str:
    """Run a program in an interpreter of its own; gives what it prints and logs."""
    answer = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=env,
        timeout=120,
    )
    assert not answer.returncode, answer.stdout
    return answer.stdout.strip()


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_configuration_no_tracing_module_is_loaded(env: dict[str, str]) -> None:
    assert run(ASK.replace("PARTS", repr(PARTS)), **env) == "[]"


def test_without_opentelemetry_a_process_logs_what_to_install() -> None:
    missing = "import sys; sys.modules['opentelemetry.exporter.otlp.proto.http'] = None\n"
    program = missing + ASK.replace("PARTS", repr(("opentelemetry.exporter.otlp.proto.http.",)))
    said = run(program, OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE)
    assert "piqueue-server[traces]" in said
    assert said.endswith("[]")


def test_a_process_ends_even_if_the_collector_never_responds(tmp_path: Path) -> None:
    asked, stopping = tmp_path / "asked", tmp_path / "stopping"
    program = f"""
import time
from pathlib import Path
import worker.jobs.traces as traces
traces.FLUSH_S = 0.2
traces.start_traces("test")
with traces.span("one"):
    pass
while not Path({str(asked)!r}).exists():
    time.sleep(0.01)
with traces.span("two"):
    pass
Path({str(stopping)!r}).touch()
traces.stop_traces()
print("ended")
"""

    async def silent(_request: web.BaseRequest) -> web.StreamResponse:
        asked.touch()
        await asyncio.sleep(600)
        return web.Response()

    with Site({"/v1/traces": silent}) as site:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": site.url(),
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        assert run(program, **env) == "ended"
        assert time.time() - stopping.stat().st_mtime < 20, "OpenTelemetry itself waits for 30 s"


def test_a_process_sends_its_last_spans_before_it_ends(collector: Collector) -> None:
    program = """
import worker.jobs.traces as traces
traces.FLUSH_S = 60
traces.start_traces("piqueue-test")
try:
    with traces.span("last"):
        raise ValueError("http://host/?secret")
except ValueError:
    pass
traces.stop_traces()
"""
    run(program, **{**collector.env, "OTEL_BSP_SCHEDULE_DELAY": "60000"})
    (last,) = collector.named("last")
    assert (last.service, last.attributes) == ("piqueue-test", {"error.type": "ValueError"})
    assert "secret" not in last.text


def test_the_operator_can_set_the_service_name(collector: Collector) -> None:
    program = """
import worker.jobs.traces as traces
traces.FLUSH_S = 60
traces.start_traces("piqueue-test")
with traces.span("named"):
    pass
traces.stop_traces()
"""
    run(program, OTEL_SERVICE_NAME="pictures-eu", **collector.env)
    assert [span.service for span in collector.named("named")] == ["pictures-eu"]
