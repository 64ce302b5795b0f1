"""`piqueue doctor` on a working, a misconfigured and a missing installation."""

import io
import json
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis import Redis

from scripts.commands.__main__ import main
from scripts.commands.doctor import line, run_all
from scripts.doctor import api
from scripts.doctor.check_result import CheckResult, Level, ok
from scripts.doctor.consistency import check_settings
from scripts.doctor.drift import check_drift
from scripts.doctor.machine import check_disk, check_files, check_uploads
from scripts.doctor.redis import check_redis
from scripts.doctor.storage import check_storage
from scripts.doctor.workers import check_keys, check_workers
from scripts.images.s3_server import BUCKET, PASSWORD, S3Server
from scripts.local.embedded_redis import EmbeddedRedis
from scripts.local.stack import Stack
from tests.pictures import jpeg
from tests.scripts.processes import eventually
from tests.worker.fetching.site import Site
from tests.worker.registry import add_version
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.ledger.score_days import ScoreDays
from worker.jobs.ledger.workers import ModelPresence, RunningVariant, Workers
from worker.jobs.models.configured import open_catalog
from worker.jobs.record import ModelRef, new_job_id
from worker.jobs.settings import Settings
from worker.jobs.storage.file_blobs import FileBlobs

SECRET = "hunter2-of-the-test"


def levels(results: Iterable[CheckResult]) -> dict[str, Level]:
    return {result.check: result.level for result in results}


def only(results: Iterable[CheckResult], check: str) -> CheckResult:
    [found] = [result for result in results if result.check == check]
    return found


def doctor(*arguments: str) -> tuple[int, str]:
    """Run the command; its exit code and what it printed."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = main(["doctor", *arguments])
    return code, printed.getvalue()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """Give a client of a Redis that a test may set up wrongly."""
    with EmbeddedRedis(tmp_path) as server, Redis.from_url(server.url) as client:
        yield client


def settings_of(client: Redis) -> Settings:
    return Settings(redis_url=f"unix://{client.connection_pool.connection_kwargs['path']}")


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Give a port that refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_working_installation_has_no_problem(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def picture(_: web.BaseRequest) -> web.Response:
        return web.Response(body=jpeg(1))

    with Redis.from_url(stack.redis_url) as redis:  # for jobs that earlier tests left behind
        assert eventually(lambda: not ModelPresence(redis).wanted())
    monkeypatch.setenv("PIQUEUE_REDIS_URL", stack.redis_url)
    monkeypatch.setenv("PIQUEUE_STORAGE_URL", stack.storage_url)
    monkeypatch.setenv("PIQUEUE_FETCH_ALLOW_NETWORKS", "127.0.0.1/32")
    with Site({"/beach.jpg": picture}) as site:
        code, printed = doctor("--url", stack.url, "--json", "--fetch", site.url("/beach.jpg?s=1"))
    report = json.loads(printed)
    assert code == 0, printed
    assert report["healthy"]
    found = {result["check"]: result for result in report["findings"]}
    expected = {"settings", "redis", "redis persistence", "redis eviction", "redis memory"}
    expected |= {"redis latency", "clock", "workers", "models", "keys", "s3", "api", "api version"}
    assert expected | {"drift", "api key", "open files", "disk", "uploads", "dns", "fetch"} == set(
        found
    )
    assert found["models"]["text"].startswith("1 of 1 workers have the default model, scenes@")
    assert f"{len(jpeg(1))} bytes" in found["fetch"]["text"]
    assert "s=1" not in printed


def test_an_api_that_hangs_is_told_apart_from_one_that_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        (found,) = api.check_api(f"http://127.0.0.1:{server.getsockname()[1]}", None)
    assert found.level is Level.PROBLEM
    assert found.advice
    assert found.advice.startswith("solve problems of Redis first")


def test_with_everything_down_each_check_reports_it_without_secrets(
    dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIQUEUE_REDIS_URL", f"redis://:{SECRET}@127.0.0.1:{dead_port}/0")
    monkeypatch.setenv("PIQUEUE_STORAGE_URL", "s3://bucket/jobs")
    monkeypatch.setenv("PIQUEUE_S3_ENDPOINT_URL", f"http://127.0.0.1:{dead_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("PIQUEUE_API_KEY", SECRET)
    url = f"http://127.0.0.1:{dead_port}"
    code, printed = doctor("--url", url, "--fetch", f"{url}/?sig={SECRET}")
    assert code == 1
    problems = [text for text in printed.splitlines() if text.startswith("problem")]
    for check in ("redis", "workers", "keys", "s3 storage", "api", "fetch"):
        assert any(text.startswith(f"problem  {check}: ") for text in problems), printed
    assert f"127.0.0.1:{dead_port}: Redis does not answer" in printed
    assert SECRET not in printed


def test_with_invalid_settings_the_api_is_still_checked(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIQUEUE_THREDS", "4")
    code, printed = doctor("--url", stack.url)
    assert code == 1
    assert "problem  settings: unknown setting PIQUEUE_THREDS" in printed
    assert "ok       api: is ready" in printed


def test_a_check_that_hangs_delays_no_other() -> None:
    released = threading.Event()

    def hangs() -> Iterator[CheckResult]:
        yield ok("slow", "began")
        released.wait()

    def quick() -> Iterator[CheckResult]:
        yield ok("quick", "done")

    started = time.monotonic()
    found = list(run_all({"slow": hangs, "quick": quick}, deadline_s=3))
    released.set()
    assert time.monotonic() - started < 30
    assert [(one.check, one.level) for one in found] == [
        ("slow", Level.OK),
        ("slow", Level.PROBLEM),
        ("quick", Level.OK),
    ]


def test_a_check_that_fails_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: shown.set())

    def fails() -> Iterator[CheckResult]:
        yield ok("odd", "began")
        raise ZeroDivisionError

    assert [one.level for one in run_all({"odd": fails})] == [Level.OK, Level.PROBLEM]
    assert shown.wait(30)


def test_a_line_names_level_check_text_and_advice() -> None:
    found = CheckResult("redis", Level.PROBLEM, "does not answer", "start it")
    assert line(found) == "problem  redis: does not answer: start it"


@pytest.mark.parametrize(
    ("setting", "value", "check", "level", "advice"),
    [
        ("appendonly", "no", "redis persistence", Level.PROBLEM, "appendonly yes"),
        ("appendfsync", "no", "redis persistence", Level.WARNING, "appendfsync everysec"),
        ("maxmemory-policy", "allkeys-lru", "redis eviction", Level.PROBLEM, "noeviction"),
        ("maxmemory", "0", "redis memory", Level.WARNING, "set maxmemory"),
        ("maxmemory", "1mb", "redis memory", Level.PROBLEM, "raise maxmemory"),
    ],
)
def test_an_unsafe_redis_setting_is_reported_with_advice(
    own_redis: Redis, setting: str, value: str, check: str, level: Level, advice: str
) -> None:
    assert levels(check_redis(settings_of(own_redis)))[check] is Level.OK
    own_redis.config_set(setting, value)
    found = only(check_redis(settings_of(own_redis)), check)
    assert found.level is level
    assert found.advice is not None
    assert advice in found.advice


def test_a_wrong_password_is_reported_and_not_shown(own_redis: Redis) -> None:
    own_redis.config_set("requirepass", SECRET)
    [found] = check_redis(settings_of(own_redis))
    assert found.level is Level.PROBLEM
    assert "Redis refuses its user" in str(found.advice)
    assert SECRET not in str(found)


def test_a_replica_is_a_problem(own_redis: Redis, dead_port: int) -> None:
    own_redis.replicaof("127.0.0.1", str(dead_port))
    assert levels(check_redis(settings_of(own_redis)))["redis role"] is Level.PROBLEM


@pytest.mark.parametrize(
    ("off_s", "level"),
    [(0, Level.OK), (30, Level.WARNING), (-30, Level.WARNING), (-900, Level.PROBLEM)],
)
def test_a_wrong_clock_is_reported_in_seconds(own_redis: Redis, off_s: float, level: Level) -> None:
    found = only(check_redis(settings_of(own_redis), lambda: time.time() + off_s), "clock")
    assert found.level is level
    if off_s:
        match = re.fullmatch(r"this machine is (\d+) s (.*) Redis", found.text)
        assert match
        number, direction = match.groups()
        assert int(number) == pytest.approx(abs(off_s), abs=5)
        assert direction == ("ahead of" if off_s > 0 else "behind")


def test_no_worker_is_a_problem(redis_url: str, redis_client: Redis) -> None:
    [found] = check_workers(Settings(redis_url=redis_url))
    assert found.level is Level.PROBLEM
    assert "none sent a heartbeat" in found.text


def test_a_worker_that_cannot_load_the_default_model_is_named(
    redis_url: str, redis_client: Redis
) -> None:
    settings = Settings(redis_url=redis_url)
    default = open_catalog(settings).resolve(None)
    workers, presence = Workers(redis_client), ModelPresence(redis_client)
    for worker in ("good-1-a", "bad-2-b"):
        workers.heartbeat(worker, 4)
    presence.report("good-1-a", {default.ref.key: RunningVariant("int8", 3.5)}, ["other@3:0123"])
    presence.report("bad-2-b", {}, [default.ref.key])
    presence.request(ModelRef("rare", "7", "0" * 64))
    found = list(check_workers(settings))
    name = f"{default.name}@{default.version}"
    assert [(one.level, one.text) for one in found] == [
        (Level.OK, "2 alive, 8 chunks at a time"),
        (Level.OK, f"1 of 2 workers have the default model, {name}, loaded (int8)"),
        (Level.PROBLEM, f"bad-2-b cannot load {name}"),
        (Level.WARNING, "good-1-a cannot load other@3"),
        (Level.PROBLEM, "jobs wait for rare@7, which no worker has loaded yet"),
    ]


def test_a_default_model_that_does_not_exist_is_a_problem(
    redis_url: str, redis_client: Redis
) -> None:
    Workers(redis_client).heartbeat("good-1-a", 4)
    found = check_workers(Settings(redis_url=redis_url, default_model="nowhere"))
    assert levels(found) == {"workers": Level.OK, "models": Level.PROBLEM}


def test_an_open_api_without_keys_is_reported(redis_url: str, redis_client: Redis) -> None:
    def level(api_url: str, **settings: Any) -> Level:
        [found] = check_keys(Settings(redis_url=redis_url, **settings), api_url)
        return found.level

    assert level("http://[2001:db8::1]:8000") is Level.PROBLEM
    here, abroad = "http://127.0.0.1:8000", "https://piqueue.example.com"
    assert level(here) is Level.OK
    assert level(here, allow_no_keys=True) is Level.WARNING
    assert level("http://api:8000") is Level.WARNING
    assert level(abroad) is Level.PROBLEM
    KeyStore(redis_client).add("alice")
    assert level(abroad, allow_no_keys=True) is Level.OK


@pytest.mark.parametrize(
    ("key", "status", "code", "level", "text"),
    [
        ("pq_old", 401, "unauthorized", Level.PROBLEM, "as the API says"),
        (None, 401, "unauthorized", Level.WARNING, "the API needs a key, and none was given"),
        ("pq_scraper", 403, "scope_missing", Level.OK, "accepted, without the scope to read jobs"),
        ("pq_any", 503, "ledger_replaced", Level.PROBLEM, "not checked: as the API says"),
    ],
)
def test_a_key_that_the_api_does_not_accept_is_reported(
    key: str | None, status: int, code: str, level: Level, text: str
) -> None:
    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        body = {"type": "t", "title": "t", "status": status, "code": code}
        return web.json_response({**body, "detail": "as the API says"}, status=status)

    with Site({"/limits": refuse}) as site:
        *_, found = api.check_api(site.url(""), key)
    assert (found.check, found.level, found.text) == ("api key", level, text)


@pytest.fixture
def on_s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Give settings for the S3 server of the tests."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return lambda **more: Settings(**more)


def test_the_s3_check_leaves_no_object_behind(
    s3_server: S3Server, on_s3: Callable[..., Settings]
) -> None:
    url = f"s3://{BUCKET}/doctor"
    found = check_storage(on_s3(storage_url=url, registry_url=url, s3_fetch_buckets=(BUCKET,)))
    assert levels(found) == dict.fromkeys(("s3 storage", "s3 registry", "s3 fetch"), Level.OK)
    assert s3_server.keys("doctor/") == []


def test_missing_buckets_and_wrong_credentials_are_reported(
    on_s3: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = check_storage(
        on_s3(
            storage_url="s3://not-there/jobs",
            registry_url="s3://not-there/models",
            s3_fetch_buckets=("not-there",),
        )
    )
    assert levels(missing) == {
        "s3 storage": Level.PROBLEM,
        "s3 registry": Level.PROBLEM,
        "s3 fetch": Level.WARNING,
    }
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    [found] = check_storage(on_s3(storage_url=f"s3://{BUCKET}/doctor"))
    assert "S3 answers 403" in found.text
    assert SECRET not in line(found)
    assert PASSWORD not in line(found)


def test_without_s3_settings_s3_is_not_checked() -> None:
    assert levels(check_storage(Settings())) == {"s3": Level.OK}


@pytest.mark.parametrize(
    ("changed", "level", "advice"),
    [
        ({"lease_s": 3}, Level.WARNING, "PIQUEUE_LEASE_S"),
        ({"lease_s": 900}, Level.WARNING, "below PIQUEUE_CHUNK_DEADLINE_S"),
        ({"chunk_deadline_s": 20, "lease_s": 15}, Level.PROBLEM, "PIQUEUE_CHUNK_DEADLINE_S"),
        ({"job_ttl_s": 100_000}, Level.WARNING, "PIQUEUE_WEBHOOK_RETRY_S"),
        (
            {"job_ttl_s": 3600, "webhook_retry_s": (5,)},
            Level.WARNING,
            "PIQUEUE_IDEMPOTENCY_TTL_S",
        ),
        ({"fetch_budget_bytes": 1_000_000}, Level.WARNING, "PIQUEUE_FETCH_BUDGET_BYTES"),
        ({"fetch_per_host": 40}, Level.WARNING, "lower PIQUEUE_FETCH_PER_HOST"),
        ({"max_request_bytes": 1_000_000}, Level.PROBLEM, "PIQUEUE_MAX_REQUEST_BYTES"),
        ({"max_backlog_items": 1000}, Level.PROBLEM, "PIQUEUE_MAX_BACKLOG_ITEMS"),
        ({"quota_items": 1000}, Level.WARNING, "PIQUEUE_QUOTA_ITEMS"),
        ({"max_pixels": 200_000_000}, Level.WARNING, "PIQUEUE_DECODE_MEMORY_BYTES"),
        ({"s3_endpoint_url": "http://s3:7070"}, Level.WARNING, "PIQUEUE_STORAGE_URL"),
        ({"redis_url": "redis://far:6379/0"}, Level.WARNING, "password"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_settings_that_contradict_one_another_are_reported(
    changed: dict[str, Any], level: Level, advice: str
) -> None:
    [found] = check_settings(Settings(**changed))
    assert found.level is level
    assert found.advice is not None
    assert advice in found.advice


def test_the_default_settings_are_consistent() -> None:
    assert levels(check_settings(Settings())) == {"settings": Level.OK}


def test_a_low_limit_of_open_files_is_reported_with_the_needed_one() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert levels(check_files(Settings())) == {"open files": Level.OK}
    [found] = check_files(Settings(fetch_concurrency=limit))
    assert found.level is Level.PROBLEM
    assert found.advice is not None
    assert f"ulimit -n {2 * limit + 200}" in found.advice


def test_the_folder_of_uploads_is_checked(own_redis: Redis, tmp_path: Path) -> None:
    def check(folder: Path, reserve_bytes: int = 0) -> CheckResult:
        uploads = {"storage_url": str(folder), "storage_reserve_bytes": reserve_bytes}
        [found] = check_uploads(settings_of(own_redis).model_copy(update=uploads))
        return found

    folder, other = tmp_path / "uploads", tmp_path / "other"
    other.mkdir()
    assert "creates" in check(folder).text
    assert not folder.exists()
    FileBlobs(folder, own_redis, 0).put(new_job_id(), {"a": b"a"}, 3600)
    before = list(folder.iterdir())
    assert check(folder).level is Level.OK
    assert list(folder.iterdir()) == before
    full = check(folder, reserve_bytes=10**15)
    assert (full.level, full.text) == (Level.PROBLEM, f"{folder} takes 0.0 GB more")
    different = check(other)
    assert different.level is Level.PROBLEM
    assert "not the folder to which the API writes" in different.text
    folder.rename(tmp_path / "away")
    folder.write_text("")
    own_redis.delete("piqueue:uploads-folder")
    unwritable = check(folder)
    assert (unwritable.level, unwritable.advice) == (Level.PROBLEM, "make the folder writable")


def test_the_disk_of_the_embedded_redis_is_checked(own_redis: Redis, tmp_path: Path) -> None:
    [found] = check_disk(settings_of(own_redis))
    assert str(tmp_path) in found.text


def test_scores_that_part_from_those_of_the_validation_set_are_a_warning(
    own_redis: Redis, tmp_path: Path
) -> None:
    settings = settings_of(own_redis).model_copy(update={"registry_url": str(tmp_path / "models")})
    labels = ("beach", "city", "sunset", "trees")
    low, high = (600, *[0] * 9), (*[0] * 9, 600)
    counts = {
        "known": dict.fromkeys(labels, low),
        "unknown": {},
        "rare": dict.fromkeys(labels, low),
    }
    for name, reference in counts.items():
        add_version(tmp_path / "models", "1", name=name, score_counts=reference)
    catalog, days = open_catalog(settings), ScoreDays(own_redis)
    assert [result.text for result in check_drift(settings)] == ["no scores in the last 7 days"]

    keys = {name: catalog.resolve(name).ref.key for name in counts}
    few = (100, *[0] * 9)
    days.add({keys["rare"]: dict.fromkeys(labels, few), keys["unknown"]: {"beach": high}})
    days.add({keys["known"]: dict.fromkeys(labels, low)})
    rare, unknown = "rare@1: too few scores to say", "unknown@1: no reference"
    known, *others = check_drift(settings)
    assert known.level is Level.OK
    assert "known@1 on " in known.text
    assert [one.level for one in others] == [Level.OK, Level.OK]
    assert others[0].text.startswith(rare)
    assert others[1].text.startswith(unknown)

    days.add({keys["known"]: {"sunset": high}})
    found = only([one for one in check_drift(settings) if one.level is not Level.OK], "drift")
    assert found.level is Level.WARNING
    assert "sunset" in found.text
    assert "beach" not in found.text
