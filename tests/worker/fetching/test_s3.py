"""Fetching from a real S3 server, and its failures."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from aiohttp import web

from scripts.images.s3_server import BUCKET, S3Server
from scripts.local.stack import listenable_port
from tests.worker.fetching.site import Site
from worker.fetching.s3 import CONCURRENCY, S3Fetcher
from worker.fetching.session import Outcome
from worker.jobs.errors import StorageUnavailable
from worker.jobs.items import Rejection, RejectionCode
from worker.jobs.settings import Settings, load_settings


@pytest.fixture
def settings(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return load_settings(s3_fetch_buckets=f"{BUCKET},other", max_item_bytes=1000, fetch_timeout_s=9)


@pytest.fixture
def fetcher(settings: Settings) -> Iterator[S3Fetcher]:
    fetcher = S3Fetcher(settings)
    yield fetcher
    fetcher.close()


def rejection(outcome: Outcome) -> Rejection:
    assert isinstance(outcome.payload, Rejection)
    return outcome.payload


def fetch(settings: Settings, url: str) -> Outcome:
    fetcher = S3Fetcher(settings)
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
    assert [outcomes[at].payload for at in range(count)] == [b"%d" % at for at in range(count)]


def test_a_reader_that_stops_early_blocks_no_other(s3_server: S3Server, fetcher: S3Fetcher) -> None:
    url = s3_server.put("fetch/one", b"one")
    for taken in (0, 1):
        with fetcher.fetching([url] * 3 * CONCURRENCY) as arriving:
            for _ in range(taken):
                next(arriving)
    with fetcher.fetching([]) as arriving:
        assert list(arriving) == []
    with fetcher.fetching([url]) as arriving:
        assert len(list(arriving)) == 1


def test_a_key_is_sent_unchanged(s3_server: S3Server, settings: Settings) -> None:
    url = s3_server.put("fetch/a%20b ü?x#y+z", b"odd")
    assert fetch(settings, url).payload == b"odd"


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        (f"s3://{BUCKET}/fetch/none", RejectionCode.FETCH_HTTP_STATUS, "answered 404 (NoSuchKey)"),
        ("s3://other/a", RejectionCode.FETCH_HTTP_STATUS, "answered 404 (NoSuchBucket)"),
        ("s3://secret/a", RejectionCode.FETCH_BLOCKED_ADDRESS, "may not come from this bucket"),
        (f"s3://{BUCKET}/fetch/large", RejectionCode.FETCH_TOO_LARGE, "larger than 1,000 bytes"),
    ],
)
def test_an_object_that_cannot_be_fetched_gets_its_code(
    s3_server: S3Server, settings: Settings, url: str, code: RejectionCode, says: str
) -> None:
    s3_server.put("fetch/large", bytes(1001))
    rejected = rejection(fetch(settings, url))
    assert (rejected.code, rejected.retryable) == (code, False)
    assert says in rejected.detail


def test_wrong_and_missing_credentials_are_distinguished_without_being_shown(
    s3_server: S3Server,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = s3_server.put("fetch/one", b"one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    rejected = rejection(fetch(settings, url))
    assert rejected.detail == "answered 403 (SignatureDoesNotMatch)"
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    rejected = rejection(fetch(settings, url))
    assert rejected.detail == "the worker has no credentials for S3"


def test_an_unreachable_server_fails_no_item(settings: Settings) -> None:
    port = listenable_port("127.0.0.1", 0)
    gone = settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{port}"})
    with pytest.raises(StorageUnavailable, match="S3 is not available") as down:
        fetch(gone, f"s3://{BUCKET}/a")
    assert str(port) not in str(down.value)


def test_a_silent_server_fails_no_item(settings: Settings) -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        silent = settings.model_copy(update={"s3_endpoint_url": url, "fetch_timeout_s": 3})
        with pytest.raises(StorageUnavailable, match="no complete answer in 3 s"):
            fetch(silent, f"s3://{BUCKET}/a")
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("stuck", "code", "says"),
    [
        (False, RejectionCode.FETCH_HTTP_STATUS, "answered 503 (503)"),
        (True, RejectionCode.FETCH_TIMEOUT, "no complete answer in 9 s"),
    ],
)
def test_an_object_that_fails_while_its_bucket_answers_is_rejected(
    settings: Settings, stuck: bool, code: RejectionCode, says: str
) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        if stuck:
            await asyncio.Event().wait()
        return web.Response(status=503)

    with Site({f"/{BUCKET}/bad": answer}) as site:
        failing = settings.model_copy(update={"s3_endpoint_url": site.url("").rstrip("/")})
        rejected = rejection(fetch(failing, f"s3://{BUCKET}/bad"))
        assert site.requests[-1].target == f"/{BUCKET}"
    assert (rejected.code, rejected.retryable, rejected.detail) == (code, True, says)


def test_a_server_that_comes_back_after_the_last_attempt_fails_no_item(settings: Settings) -> None:
    is_back = False

    async def broken(request: web.BaseRequest) -> web.StreamResponse:
        if not is_back and request.transport:
            request.transport.abort()
        return web.Response(body=b"picture")

    async def back(_request: web.BaseRequest) -> web.StreamResponse:
        nonlocal is_back
        is_back = True
        return web.Response()

    with Site({f"/{BUCKET}/a": broken, f"/{BUCKET}": back}) as site:
        returning = settings.model_copy(update={"s3_endpoint_url": site.url("").rstrip("/")})
        assert fetch(returning, f"s3://{BUCKET}/a").payload == b"picture"


def test_taking_outcomes_raises_if_s3_is_not_available(settings: Settings) -> None:
    async def overloaded(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=503)

    with Site(
        {f"/{BUCKET}/{at}": overloaded for at in range(3)} | {f"/{BUCKET}": overloaded}
    ) as site:
        failing = settings.model_copy(update={"s3_endpoint_url": site.url("").rstrip("/")})
        fetcher = S3Fetcher(failing)
        try:
            with (
                fetcher.fetching([f"s3://{BUCKET}/{at}" for at in range(3)]) as arriving,
                pytest.raises(StorageUnavailable),
            ):
                list(arriving)
        finally:
            fetcher.close()
