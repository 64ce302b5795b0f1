"""Fetching from a real S3 server, with what can go wrong."""

import asyncio
import dataclasses
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from aiohttp import web

from tests.s3 import BUCKET, S3Server
from tests.worker.fetching.site import Site
from worker.fetching.fetcher import FetchCode, Fetched, FetchFailed, Outcome
from worker.fetching.s3 import CONCURRENCY, S3Fetcher
from worker.jobs.errors import StorageUnavailable
from worker.jobs.settings import Settings, load_settings


@pytest.fixture
def settings(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return load_settings(s3_fetch_buckets=f"{BUCKET},other", max_item_bytes=1000, fetch_timeout_s=3)


@pytest.fixture
def fetcher(settings: Settings) -> Iterator[S3Fetcher]:
    fetcher = S3Fetcher.open(settings)
    yield fetcher
    fetcher.close()


def fetch(settings: Settings, url: str) -> Outcome:
    fetcher = S3Fetcher.open(settings)
    try:
        return fetcher.fetch(url, threading.Event())
    finally:
        fetcher.close()


def test_each_object_arrives_once_under_its_position(
    s3_server: S3Server, fetcher: S3Fetcher
) -> None:
    count = 3 * CONCURRENCY
    urls = [s3_server.put(f"fetch/{index}", b"%d" % index) for index in range(count)]
    with fetcher.fetching(urls) as arriving:
        outcomes = dict(arriving)
    assert [dataclasses.replace(outcomes[at], elapsed_ms=0) for at in range(count)] == [
        Fetched(b"%d" % at, 0) for at in range(count)
    ]


def test_a_reader_that_leaves_early_blocks_nobody(s3_server: S3Server, fetcher: S3Fetcher) -> None:
    url = s3_server.put("fetch/one", b"one")
    for taken in (0, 1):
        with fetcher.fetching([url] * 3 * CONCURRENCY) as arriving:
            for _ in range(taken):
                next(arriving)
    with fetcher.fetching([]) as arriving:
        assert list(arriving) == []
    with fetcher.fetching([url]) as arriving:
        assert len(list(arriving)) == 1


def test_a_key_is_taken_as_it_stands(s3_server: S3Server, settings: Settings) -> None:
    url = s3_server.put("fetch/a%20b ü?x#y+z", b"odd")
    outcome = fetch(settings, url)
    assert isinstance(outcome, Fetched)
    assert outcome.payload == b"odd"


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        (f"s3://{BUCKET}/fetch/none", FetchCode.HTTP_STATUS, "answered 404 (NoSuchKey)"),
        ("s3://other/a", FetchCode.HTTP_STATUS, "answered 404 (NoSuchBucket)"),
        ("s3://secret/a", FetchCode.BLOCKED_ADDRESS, "may not come from this bucket"),
        (f"s3://{BUCKET}/fetch/large", FetchCode.TOO_LARGE, "larger than 1,000 bytes"),
    ],
)
def test_what_cannot_be_had_is_named(
    s3_server: S3Server, settings: Settings, url: str, code: FetchCode, says: str
) -> None:
    s3_server.put("fetch/large", bytes(1001))
    outcome = fetch(settings, url)
    assert isinstance(outcome, FetchFailed)
    assert (outcome.code, outcome.retryable) == (code, False)
    assert says in outcome.detail


def test_wrong_and_missing_credentials_are_told_apart_without_telling_them(
    s3_server: S3Server,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = s3_server.put("fetch/one", b"one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    outcome = fetch(settings, url)
    assert isinstance(outcome, FetchFailed)
    assert outcome.detail == "answered 403 (SignatureDoesNotMatch)"
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    outcome = fetch(settings, url)
    assert isinstance(outcome, FetchFailed)
    assert outcome.detail == "the worker has no credentials for S3"


def test_a_server_that_is_not_there_is_no_fault_of_an_item(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    gone = settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{port}"})
    with pytest.raises(StorageUnavailable, match="S3 is away") as away:
        fetch(gone, f"s3://{BUCKET}/a")
    assert str(port) not in str(away.value)


def test_a_server_that_is_silent_is_no_fault_of_an_item(settings: Settings) -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        silent = settings.model_copy(update={"s3_endpoint_url": url})
        with pytest.raises(StorageUnavailable, match="no complete answer in 3 s"):
            fetch(silent, f"s3://{BUCKET}/a")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("stuck", "code", "says"),
    [
        (False, FetchCode.HTTP_STATUS, "answered 503 (503)"),
        (True, FetchCode.TIMEOUT, "no complete answer in 3 s"),
    ],
)
def test_an_object_that_alone_cannot_be_had_is_rejected(
    settings: Settings, stuck: bool, code: FetchCode, says: str
) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        if stuck:
            await asyncio.Event().wait()
        return web.Response(status=503)

    with Site({f"/{BUCKET}/bad": answer}) as site:
        lame = settings.model_copy(update={"s3_endpoint_url": site.url("").rstrip("/")})
        outcome = fetch(lame, f"s3://{BUCKET}/bad")
        assert site.requests[-1].target == f"/{BUCKET}"
    assert isinstance(outcome, FetchFailed)
    assert (outcome.code, outcome.retryable, outcome.detail) == (code, True, says)


def test_who_takes_outcomes_hears_that_s3_is_away(settings: Settings) -> None:
    async def overloaded(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=503)

    with Site(
        {f"/{BUCKET}/{at}": overloaded for at in range(3)} | {f"/{BUCKET}": overloaded}
    ) as site:
        lame = settings.model_copy(update={"s3_endpoint_url": site.url("").rstrip("/")})
        fetcher = S3Fetcher.open(lame)
        try:
            with (
                fetcher.fetching([f"s3://{BUCKET}/{at}" for at in range(3)]) as arriving,
                pytest.raises(StorageUnavailable),
            ):
                list(arriving)
        finally:
            fetcher.close()
