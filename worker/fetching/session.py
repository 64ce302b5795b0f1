"""What a download may be and may come to, and a session that guards every address it dials."""

import math
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

from worker.fetching.guard import Network, is_disguised_ipv4, may_dial

HEADERS = {
    "User-Agent": "Piqueue (fetches pictures to classify them)",
    "Accept": "image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5",
    # Pictures are compressed already. What comes compressed all the same is unpacked.
    "Accept-Encoding": "identity",
}
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
RETRIES = 2
BACKOFF_S = 0.2  # before the first retry, doubled for each further one
# An address is vetted whenever it is dialled, so a name may be remembered.
DNS_TTL_S = 60
# What one connection holds besides a payload.
READ_BYTES = 2**16
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

    `timeout_s` is the deadline of one URL with its redirects, retries and the pauses its host asks
    for; who waits for a place at a host gives up once that was silent as long, or after
    `patience_s`. `max_bytes` bounds a payload, after decompression. A process downloads at most
    `concurrency` payloads at once and asks one host for `per_host`; below `concurrency`, a host
    that hangs leaves room for the others. Payloads arriving or not yet taken hold at most
    `budget_bytes` together, and one of them whatever it needs beyond. Addresses in
    `allow_networks` may be dialled though they are not public.
    """

    timeout_s: float
    max_bytes: int
    concurrency: int
    per_host: int
    budget_bytes: int = 200_000_000
    patience_s: float = 300
    max_redirects: int = 3
    allow_networks: tuple[Network, ...] = ()


@dataclass(frozen=True)
class Fetched:
    """The body of a 2xx answer, whatever it says its type is."""

    payload: bytes
    elapsed_ms: int


@dataclass(frozen=True)
class FetchFailed:
    """Why there is no payload: a code for programs, a sentence for people, never the URL.

    `http_status` is what the host answered, where that is the reason.
    """

    code: FetchCode
    retryable: bool
    detail: str
    elapsed_ms: int = 0
    http_status: int | None = None


class UrlRefused(Exception):
    """A URL that is not fetched at all; the text says why."""


class DownloadFailure(Exception):
    """Raised where a download fails; becomes a FetchFailed."""

    def __init__(
        self,
        code: FetchCode,
        detail: str,
        *,
        retryable: bool = False,
        http_status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retryable = retryable
        self.http_status = http_status


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
            ttl_dns_cache=DNS_TTL_S,
            socket_factory=guarded_socket,
        ),
        headers=HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        read_bufsize=READ_BYTES,
    )


def redirected(url: URL, location: str) -> URL:
    """Read where a redirect leads.

    Raises:
        DownloadFailure: to nothing that may be fetched.
    """
    try:
        quoted = ALREADY_QUOTED.fullmatch(location) is not None
        return parse_url(str(url.join(URL(location, encoded=quoted))))
    except (ValueError, UrlRefused) as error:
        reason = str(error) if isinstance(error, UrlRefused) else "is not a URL"
        raise DownloadFailure(FetchCode.REDIRECTS, f"redirected to what {reason}") from error


def explained(error: aiohttp.ClientError | UnicodeError) -> DownloadFailure:
    """Say what a request failed for, as a code and a sentence without the URL."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            again = error.os_error.errno == socket.EAI_AGAIN
            return DownloadFailure(FetchCode.DNS, "the host name does not resolve", retryable=again)
        case UnicodeError():
            return DownloadFailure(FetchCode.DNS, "the host name is not valid")
        case aiohttp.ClientConnectorError(os_error=_AddressBlocked() as blocked):
            return DownloadFailure(FetchCode.BLOCKED_ADDRESS, str(blocked))
        case aiohttp.ClientConnectorCertificateError():
            return DownloadFailure(FetchCode.CONNECTION, "its certificate is not valid")
        case aiohttp.ClientSSLError():
            return DownloadFailure(FetchCode.CONNECTION, "no TLS connection was possible")
        case aiohttp.ClientConnectorError():
            reason = os.strerror(error.errno).lower() if error.errno else "no address answered"
            return DownloadFailure(
                FetchCode.CONNECTION, f"could not connect: {reason}", retryable=True
            )
        case aiohttp.ClientResponseError():
            return DownloadFailure(FetchCode.CONNECTION, "did not answer in valid HTTP")
        case _:
            return DownloadFailure(
                FetchCode.CONNECTION, "the connection broke before the end", retryable=True
            )


def backoff_s(retry: int, most_s: float = math.inf) -> float:
    """Give the pause before a retry, counted from 0; who failed together comes back apart."""
    jitter = random.uniform(0.5, 1)  # noqa: S311 - spreads the load, hides nothing
    return jitter * min(BACKOFF_S * 2.0**retry, most_s)


def retry_after_s(header: str) -> float:
    """Seconds to wait, from a number of seconds or an HTTP date; 0 when it says neither."""
    if header.isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
