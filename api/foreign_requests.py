"""Requests that a web page of another site sends to a server on this machine, by their headers."""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers

READS = ("GET", "HEAD", "OPTIONS")


def foreign_reason(
    method: str,
    headers: Headers,
    allowed_hosts: Collection[str] | None,
    allowed_origins: Collection[str] = (),
) -> str | None:
    """Return why a request may come from another site's page, or None.

    `allowed_hosts` are the host names that are accepted besides IP addresses and `localhost`; None
    accepts every name. Other names are refused because their owner can make them resolve to this
    machine (DNS rebinding); a browser never omits the name. A request that changes something is
    refused if the browser says, in `Origin` or `Sec-Fetch-Site`, that another site sent it, unless
    its page is of one of `allowed_origins`.
    """
    host = headers.get("host", "")
    name = _hostname(f"//{host}")
    # Health checks in HTTP/1.0 have no Host.
    is_own = "host" not in headers or _is_local(name) or name in (allowed_hosts or ())
    if allowed_hosts is not None and not is_own:
        return (
            f"the request is for the host {name!r}: use 127.0.0.1 or localhost, add the name to "
            "PIQUEUE_ALLOWED_HOSTS, or make an API key"
        )
    if method in READS:
        return None
    origin = headers.get("origin", "")
    if origin in allowed_origins:
        return None
    own = origin.partition("://")[2] == host or _hostname(origin) in (allowed_hosts or ())
    if origin and not own:
        return f"the request comes from a page of {origin}: use the page of this API"
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return "the request comes from a page of another site: use the page of this API"
    return None


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_local(name: str) -> bool:
    """Whether nobody can make this name, from `Host`, resolve to another machine's address."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
