"""The limits and outcomes of downloads, and an HTTP session that checks each address it dials."""

import math
import os
import random
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage
from yarl import URL

from worker.fetching.guard import Network, is_disguised_ipv4, may_dial
from worker.jobs.items import Rejection, RejectionCode, Stage
from worker.jobs.settings import Settings

HEADERS = {
    "User-Agent": "Piqueue (fetches pictures to classify them)",
    "Accept": "image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5",
    # Pictures are compressed already. A compressed body is unpacked all the same.
    "Accept-Encoding": "identity",
}
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
RETRIES = 2
BACKOFF_S = 0.2  # before the first retry, doubled for each further one
# Each connection checks its address, so names can be cached.
DNS_TTL_S = 60
# The buffer of one connection, besides the payload.
READ_BYTES = 2**16
# Of one header line, as browsers accept them; and the number of lines, which bounds their memory.
HEADER_BYTES = 2**16
HEADER_LINES = 256
# Of status 1xx, before the answer itself. Each takes time of the event loop.
INTERIM_ANSWERS = 16
# Such a URL is sent unchanged: a signature may cover its exact spelling.
ALREADY_QUOTED = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")

# Of these, the body may be a picture as it is.
WRONG_ENCODINGS = (
    "answered with a Content-Encoding that was not asked for, and no picture",
    "its body is neither a picture nor compressed as its Content-Encoding says",
)
# What a message of aiohttp contains, and what is said instead.
_UNREADABLE = {
    "Please install": WRONG_ENCODINGS[0],
    "Can not decode content-encoding": WRONG_ENCODINGS[1],
    "Got more than": f"a line of its headers is longer than {HEADER_BYTES:,} bytes",
    "Too many headers": f"answered with more than {HEADER_LINES} headers",
    "Too many interim": f"answered with more than {INTERIM_ANSWERS} statuses of 1xx",
}


@dataclass(frozen=True)
class FetchLimits:
    """Limits of downloads.

    `timeout_s` is the deadline of one URL with its redirects, retries and the pauses that its host
    asks for. A download that waits for a slot of its host fails once the host has been silent that
    long, or after `patience_s`. `max_bytes` limits a payload, after decompression. A process
    downloads at most `concurrency` payloads at once, and `per_host` from one host; a lower
    `per_host` leaves slots for others while a host hangs. Payloads that arrive or wait to be taken
    hold at most `budget_bytes` together, and one of them whatever it needs beyond.
    `allow_networks` are networks that may be dialled although they are not public.
    """

    timeout_s: float
    max_bytes: int
    concurrency: int
    per_host: int
    budget_bytes: int = 200_000_000
    patience_s: float = 300
    max_redirects: int = 3
    allow_networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Give the limits that the settings name."""
        return cls(
            timeout_s=settings.fetch_timeout_s,
            max_bytes=settings.max_item_bytes,
            concurrency=settings.fetch_concurrency,
            per_host=settings.fetch_per_host,
            budget_bytes=settings.fetch_budget_bytes,
            allow_networks=settings.fetch_allow_networks,
        )


@dataclass(frozen=True)
class Outcome:
    """The body of a 2xx answer, whatever its content type, or why there is none."""

    payload: bytes | Rejection
    elapsed_ms: int

    @property
    def label(self) -> str:
        """The error code, or `fetched`."""
        return self.payload.code if isinstance(self.payload, Rejection) else "fetched"


class UrlRefused(Exception):
    """A URL may not be fetched; the text says why."""


class DownloadError(Exception):
    """Carries a rejection up to where the download returns it."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.detail)
        self.rejection = rejection


class _AddressBlocked(OSError):
    """Raised instead of opening a socket.

    Where all addresses of a name fail, the type survives only if their texts are the same.
    """

    def __init__(self) -> None:
        super().__init__("leads to an address that is not public")


class _LimitedInterim(ResponseHandler):
    """Limits the interim answers, which aiohttp reads without a limit."""

    _interim_count = 0

    async def read(self) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
        message, body = await super().read()
        self._interim_count = self._interim_count + 1 if 100 <= message.code < 200 else 0
        if self._interim_count > INTERIM_ANSWERS:
            raise HttpProcessingError(message="Too many interim answers")
        return message, body


class _Connector(aiohttp.TCPConnector):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        handler: type[ResponseHandler] = _LimitedInterim
        self._factory = partial(handler, loop=self._loop)


def parse_url(text: str) -> URL:
    """Parse an absolute http or https URL without user name or password.

    Raises:
        UrlRefused: the text is anything else, or spells an IPv4 address in another notation.
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
        raise UrlRefused("has an IPv4 address that is not written as four decimal numbers")
    return url


def open_session(
    per_host: int, allow_networks: Sequence[Network], resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """Open a session that dials allowed addresses only; open and close it in the event loop.

    It keeps no cookies and takes no proxies or passwords from the environment. `resolver` replaces
    the system's.
    """

    def guarded_socket(addr_info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = addr_info
        if not may_dial(address[0], allow_networks):
            raise _AddressBlocked
        return socket.socket(family, kind, protocol)

    return aiohttp.ClientSession(
        connector=_Connector(
            limit=0,
            limit_per_host=per_host,
            resolver=resolver,
            ttl_dns_cache=DNS_TTL_S,
            socket_factory=guarded_socket,
        ),
        headers=HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        read_bufsize=READ_BYTES,
        max_line_size=HEADER_BYTES,
        max_field_size=HEADER_BYTES,
        max_headers=HEADER_LINES,
    )


def redirect_target(url: URL, location: str) -> URL:
    """Resolve the Location of a redirect.

    Raises:
        DownloadError: it is not a URL that may be fetched.
    """
    try:
        quoted = ALREADY_QUOTED.fullmatch(location) is not None
        return parse_url(str(url.join(URL(location, encoded=quoted))))
    except (ValueError, UrlRefused) as error:
        reason = str(error) if isinstance(error, UrlRefused) else "is not a URL"
        detail = f"redirected to an address that {reason}"
        raise DownloadError(fetch_rejection(RejectionCode.FETCH_REDIRECTS, detail)) from error


def fetch_rejection(
    code: RejectionCode, detail: str, *, retryable: bool = False, http_status: int | None = None
) -> Rejection:
    """Reject an item that was not fetched; `detail` must not contain its URL."""
    return Rejection(code, Stage.FETCH, retryable, detail, http_status)


def rejection_from(error: aiohttp.ClientError | UnicodeError) -> Rejection:
    """Turn the error of a request into a rejection."""
    code, retryable = RejectionCode.FETCH_CONNECTION, False
    message = str(error.__cause__ or error)
    unreadable = next((detail for text, detail in _UNREADABLE.items() if text in message), None)
    match error:
        case aiohttp.ClientConnectorDNSError():
            code, detail = RejectionCode.FETCH_DNS, "the host name does not resolve"
            retryable = error.os_error.errno == socket.EAI_AGAIN
        case UnicodeError():
            code, detail = RejectionCode.FETCH_DNS, "the host name is not valid"
        case aiohttp.ClientConnectorError(os_error=_AddressBlocked() as blocked):
            code, detail = RejectionCode.FETCH_BLOCKED_ADDRESS, str(blocked)
        case aiohttp.ClientConnectorCertificateError():
            detail = "its certificate is not valid"
        case aiohttp.ClientSSLError():
            detail = "no TLS connection was possible"
        case aiohttp.ClientConnectorError():
            reason = os.strerror(error.errno).lower() if error.errno else "no address answered"
            detail, retryable = f"could not connect: {reason}", True
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError() if unreadable:
            detail = unreadable
        case aiohttp.ClientResponseError():
            detail = "did not answer in valid HTTP"
        case _:
            detail, retryable = "the connection broke before the end", True
    return fetch_rejection(code, detail, retryable=retryable)


def backoff_s(retry: int, most_s: float = math.inf) -> float:
    """Give the pause before a retry, counted from 0, with jitter."""
    jitter = random.uniform(0.5, 1)  # noqa: S311 - spreads the load, hides nothing
    return jitter * min(BACKOFF_S * 2.0**retry, most_s)


def retry_after_s(header: str) -> float:
    """Parse a Retry-After header, a number of seconds or an HTTP date; 0 if it is neither."""
    if header.isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
