"""Mistakes on this side of the connection, which no second attempt mends."""

import re
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx2

from piqueue.errors import PiqueueApiError

_EXAMPLE = "http://127.0.0.1:8000"
_NO_SUCH_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
# Characters of a value that is one word, and what others are called.
_UNEXPECTED = (
    (re.compile(r"[\r\n]"), "a line break"),
    (re.compile(r"\s"), "a space"),
    (re.compile(r"[\x00-\x1f\x7f]"), "a control character"),
    (re.compile(r"[\"']"), "a quotation mark"),
)
_BEYOND_ASCII = (re.compile(r"[^\x00-\x7f]"), "a character beyond ASCII")


def check_key(key: str, source: str) -> None:
    """Check an API key without quoting it. Raises PiqueueApiError."""
    for pattern, name in (*_UNEXPECTED, _BEYOND_ASCII):
        if pattern.search(key):
            detail = f"{source} contains {name}: remove it, a key is one word such as pq_…"
            raise PiqueueApiError("key_invalid", detail)


def check_url(url: str, source: str) -> None:
    """Check the address of an API, quoting no password. Raises PiqueueApiError."""
    for pattern, name in _UNEXPECTED:
        if pattern.search(url):
            detail = f"{source} contains {name}: remove it, an address is such as {_EXAMPLE}"
            raise PiqueueApiError("url_invalid", detail)
    if "@" in url:
        detail = f"{source} contains a user name or password: remove it, and use an API key"
        raise PiqueueApiError("url_invalid", detail)
    if not _is_http(url):
        detail = f"{url} is not the address of an API: give one such as {_EXAMPLE}"
        raise PiqueueApiError("url_invalid", detail)


def local_mistake(error: httpx2.TransportError, url: str) -> PiqueueApiError | None:
    """Return the error of a request that failed for its host name, TLS or protocol, or None."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror) and cause.errno in _NO_SUCH_HOST:
            proxy = " and the proxy in the environment" if getproxies() else ""
            detail = f"no host named {urlsplit(url).hostname} is known: check the address{proxy}"
            return PiqueueApiError("host_unknown", detail)
        if isinstance(cause, ssl.SSLCertVerificationError):
            detail = (
                f"the certificate of {url} is refused ({cause.verify_message}): correct the "
                "address, or make this system trust the authority that issued it"
            )
            return PiqueueApiError("tls_refused", detail)
        if isinstance(cause, ssl.SSLError) and cause.reason:
            reason = cause.reason.lower().replace("_", " ")
            detail = (
                f"TLS with {url} failed ({reason}): if it serves plain HTTP, "
                "write its address with http://"
            )
            return PiqueueApiError("tls_refused", detail)
    if isinstance(error, httpx2.RemoteProtocolError) and "illegal status line" in str(error):
        detail = f"what answers at {url} does not speak HTTP: check the address and the port"
        return PiqueueApiError("not_piqueue", detail)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        # Names that the resolver cannot encode, such as a..b, raise UnicodeError, a ValueError.
        return bool(
            parts.scheme in ("http", "https")
            and host.encode("idna")
            and parts.port != 0
            and not (parts.query or parts.fragment)
        )
    except ValueError:
        return False
