"""Checks a download as a worker does it: name resolution, the transfer and its rate."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from worker.fetching.fetcher import Fetcher
from worker.fetching.session import FetchLimits, UrlRefused, parse_url
from worker.jobs.items import Rejection
from worker.jobs.settings import Settings

SLOW_LOOKUP_MS = 500
SLOW_BYTES_PER_S = 1e6
# The duration of smaller downloads depends on round trips, not on the rate.
RATED_BYTES = 500_000


def check_fetch(settings: Settings, target: str) -> Iterator[CheckResult]:
    """Resolve the host of a URL and download the URL as a worker does."""
    try:
        url = parse_url(target)
    except UrlRefused as error:
        yield problem("fetch", f"it {error}", "give --fetch an http:// or https:// URL")
        return
    host = url.raw_host or ""
    started = time.perf_counter()
    try:
        socket.getaddrinfo(host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        yield problem("dns", f"{host} does not resolve", "correct the name servers of this machine")
        return
    taken_ms = (time.perf_counter() - started) * 1000
    text = f"{host} resolves in {taken_ms:.0f} ms"
    if taken_ms > SLOW_LOOKUP_MS:
        yield warning("dns", text, "use a name server that is near or caches")
    else:
        yield ok("dns", text)
    yield _download(settings, target, host)


def _download(settings: Settings, target: str, host: str) -> CheckResult:
    with closing(Fetcher(FetchLimits.of(settings))) as fetcher:
        [(_, outcome)] = fetcher.fetch_all([target])
    payload = outcome.payload
    if isinstance(payload, Rejection):
        return problem(
            "fetch",
            f"{host}: {payload.code}, {payload.detail}",
            "try it from this machine by hand; private ranges need PIQUEUE_FETCH_ALLOW_NETWORKS",
        )
    size, taken_s = len(payload), max(outcome.elapsed_ms, 1) / 1000
    text = f"{host}: {size} bytes in {outcome.elapsed_ms} ms, {size / taken_s / 1e6:.1f} MB/s"
    if size > RATED_BYTES and size / taken_s < SLOW_BYTES_PER_S:
        return warning("fetch", text, "run workers nearer to the pictures")
    return ok("fetch", text)
