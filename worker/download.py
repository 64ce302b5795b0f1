"""One URL to its bytes: limits, redirects, retries, and the guard on every address dialled."""

import asyncio
import os
import random
import re
import socket
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from worker.addresses import Network, is_disguised_ipv4, may_dial

HEADERS = {
    "User-Agent": "Piqueue (fetches pictures to classify them)",
    "Accept": "image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5",
    # Pictures are compressed already. What comes compressed all the same is unpacked.
    "Accept-Encoding": "identity",
}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
RETRIES = 2
BACKOFF_S = 0.2  # before the first retry, doubled for each further one
# Sent as it stands: a signature may cover the very spelling of a URL.
ALREADY_QUOTED = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


class FetchCode(StrEnum):
    """Why a URL gave no payload."""

    DNS = "fetch_dns"
    BLOCKED_ADDRESS = "fetch_blocked_address"
    TIMEOUT = "fetch_timeout"
    CONNECTION = "fetch_connection"
    HTTP_STATUS = "fetch_http_status"
    TOO_LARGE = "fetch_too_large"
    REDIRECTS = "fetch_redirects"


@dataclass(frozen=True)
class FetchLimits:
    """Bounds on downloads.

    `timeout_s` is the deadline of one URL with its redirects, retries and the waits between them.
    `max_bytes` bounds a payload, after decompression. A process holds at most `concurrency`
    payloads, arriving or not yet taken, and asks one host for `per_host` at a time; below
    `concurrency`, a host that hangs leaves room for the others. Addresses in `allow_networks` may
    be dialled though they are not public.
    """

    timeout_s: float
    max_bytes: int
    concurrency: int
    per_host: int
    max_redirects: int = 3
    allow_networks: tuple[Network, ...] = ()


@dataclass(frozen=True)
class Fetched:
    """The body of a 2xx answer, whatever it says its type is."""

    payload: bytes
    elapsed_ms: int


@dataclass(frozen=True)
class FetchFailed:
    """Why there is no payload: a code for programs, a sentence for people, never the URL."""

    code: FetchCode
    retryable: bool
    detail: str
    elapsed_ms: int = 0


class UrlRefused(Exception):
    """A URL that is not fetched at all; the text says why."""


class _Failure(Exception):
    def __init__(
        self, code: FetchCode, detail: str, *, retryable: bool = False, retry_after_s: float = 0
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class _AddressBlocked(OSError):
    """Raised where a socket would be made; the text is fixed, or several would lose their type."""

    def __init__(self) -> None:
        super().__init__("leads to an address that is not public")


def parse_url(text: str) -> URL:
    """Read an absolute http or https URL without user or password.

    Raises:
        UrlRefused: it is anything else, or hides an IPv4 address in another notation.
    """
    try:
        url = URL(text, encoded=ALREADY_QUOTED.fullmatch(text) is not None)
        host = url.raw_host
    except ValueError:
        raise UrlRefused("is not a URL") from None
    if url.scheme not in ("http", "https") or not host:
        raise UrlRefused("is not an http or https URL")
    if "@" in url.raw_authority:
        raise UrlRefused("carries a user name or password in its URL")
    if is_disguised_ipv4(host):
        raise UrlRefused("spells an IPv4 address otherwise than as four decimal numbers")
    return url


def open_session(
    limits: FetchLimits, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """Open the session that `download` uses; call it, and close it, inside the event loop.

    It keeps no cookies and takes no proxies or passwords from the environment. `resolver` stands
    in for the system's.
    """

    def guarded_socket(addr_info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = addr_info
        if not may_dial(address[0], limits.allow_networks):
            raise _AddressBlocked
        return socket.socket(family, kind, protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            limit_per_host=limits.per_host,
            resolver=resolver,
            socket_factory=guarded_socket,
        ),
        headers=HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
    )


async def download(
    session: aiohttp.ClientSession, url: URL, limits: FetchLimits
) -> Fetched | FetchFailed:
    """Fetch a URL that `parse_url` gave, within `limits`."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(limits.timeout_s):
            payload = await _get_with_retries(session, url, limits, started + limits.timeout_s)
    except TimeoutError:
        failure = _Failure(
            FetchCode.TIMEOUT, f"no complete answer in {limits.timeout_s:g} s", retryable=True
        )
    except _Failure as error:
        failure = error
    else:
        return Fetched(payload, _ms_since(started))
    return FetchFailed(failure.code, failure.retryable, failure.detail, _ms_since(started))


async def _get_with_retries(
    session: aiohttp.ClientSession, url: URL, limits: FetchLimits, deadline: float
) -> bytes:
    retry = 0
    while True:
        try:
            return await _get(session, url, limits)
        except _Failure as failure:
            jitter = random.uniform(0.5, 1)  # noqa: S311 - spreads the load, hides nothing
            pause_s = failure.retry_after_s + jitter * BACKOFF_S * 2**retry
            if not failure.retryable or retry == RETRIES or time.monotonic() + pause_s >= deadline:
                raise
        await asyncio.sleep(pause_s)
        retry += 1


async def _get(session: aiohttp.ClientSession, url: URL, limits: FetchLimits) -> bytes:
    """Follow redirects by hand, so that each URL passes `parse_url`."""
    try:
        for _ in range(limits.max_redirects + 1):
            async with session.get(url, allow_redirects=False) as response:
                location = response.headers.get("Location")
                if response.status not in REDIRECTS or location is None:
                    return await _read(response, limits.max_bytes)
            url = _redirected(url, location)
    except (aiohttp.ClientError, UnicodeError) as error:
        raise explained(error) from error
    raise _Failure(FetchCode.REDIRECTS, f"redirected more than {limits.max_redirects} times")


def _redirected(url: URL, location: str) -> URL:
    try:
        quoted = ALREADY_QUOTED.fullmatch(location) is not None
        return parse_url(str(url.join(URL(location, encoded=quoted))))
    except (ValueError, UrlRefused) as error:
        reason = str(error) if isinstance(error, UrlRefused) else "is not a URL"
        raise _Failure(FetchCode.REDIRECTS, f"redirected to what {reason}") from error


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if not 200 <= response.status < 300:
        raise _Failure(
            FetchCode.HTTP_STATUS,
            f"answered {response.status}",
            retryable=response.status in TRANSIENT,
            retry_after_s=_retry_after_s(response.headers.get("Retry-After", "")),
        )
    size = response.content_length or 0
    parts: list[bytes] = []
    if size <= max_bytes:
        size = 0
        while size <= max_bytes and (part := await response.content.readany()):
            size += len(part)
            parts.append(part)
    if size > max_bytes:
        raise _Failure(FetchCode.TOO_LARGE, f"larger than {max_bytes:,} bytes")
    return b"".join(parts)


def explained(error: aiohttp.ClientError | UnicodeError) -> _Failure:
    """Say what a request failed for, as a code and a sentence without the URL."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            again = error.os_error.errno == socket.EAI_AGAIN
            return _Failure(FetchCode.DNS, "the host name does not resolve", retryable=again)
        case UnicodeError():
            return _Failure(FetchCode.DNS, "the host name is not valid")
        case aiohttp.ClientConnectorError(os_error=_AddressBlocked() as blocked):
            return _Failure(FetchCode.BLOCKED_ADDRESS, str(blocked))
        case aiohttp.ClientConnectorCertificateError():
            return _Failure(FetchCode.CONNECTION, "its certificate is not valid")
        case aiohttp.ClientSSLError():
            return _Failure(FetchCode.CONNECTION, "no TLS connection was possible")
        case aiohttp.ClientConnectorError():
            reason = os.strerror(error.errno).lower() if error.errno else "no address answered"
            return _Failure(FetchCode.CONNECTION, f"could not connect: {reason}", retryable=True)
        case aiohttp.ClientResponseError():
            return _Failure(FetchCode.CONNECTION, "did not answer in valid HTTP")
        case _:
            return _Failure(
                FetchCode.CONNECTION, "the connection broke before the end", retryable=True
            )


def _retry_after_s(header: str) -> float:
    """Seconds to wait, from a number of seconds or an HTTP date; 0 when it says neither."""
    if header.isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
