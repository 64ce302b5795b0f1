"""Paths of this API as its callers see them, and checks of the URLs that they send."""

import re
from collections.abc import Collection
from contextvars import ContextVar
from typing import get_origin
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Header, Path
from starlette.datastructures import QueryParams

from worker.jobs.errors import ParameterInvalid, shortened

MAX_URL_CHARS = 4096
SHOWN_CHARS = 60
# The last are invisible, and come along when a URL is copied from a page.
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\u00ad\u2000-\u200f\u2028-\u202f\u2060\ufeff]")
# Several URLs in one cell, as shops export them. One within another's path or query follows / or =.
_SEVERAL = re.compile(r"([,;|])https?://", re.IGNORECASE)
# Their parameters are the options of a table, and checked with it.
_TAKE_TABLES = {("POST", "/jobs"), ("POST", "/jobs/{job_id}/items")}

# The path prefix of the current request; `BehindProxy` sets it.
root_path: ContextVar[str] = ContextVar("root_path", default="")


def own_path(path: str) -> str:
    """Return the path by which the caller of the current request reaches `path` of this API."""
    return root_path.get() + path


async def refuse_unfit_parameters(request: Request) -> None:
    """Refuse a query parameter that would have no effect, such as a filter misspelt.

    Raises:
        ParameterInvalid: the route has none of this name, or it is there twice.
    """
    route = request.scope["route"]
    if not request.query_params or (request.method, route.path) in _TAKE_TABLES:
        return
    fields = get_flat_params(route.dependant)
    known = {
        field.alias: get_origin(field.field_info.annotation) is list
        for field in fields
        if not isinstance(field.field_info, (Header, Path))
    }
    for name in request.query_params:
        if name not in known:
            advice = f"use {', '.join(known)}" if known else "remove it"
            raise ParameterInvalid(f"there is no parameter {_shown(name)} here: {advice}")
    lists = [name for name, takes_many in known.items() if takes_many]
    if twice := repeated(request.query_params, lists):
        raise ParameterInvalid(f"the parameter {twice} is there twice: give it once")


def repeated(params: QueryParams, lists: Collection[str] = ()) -> str | None:
    """Return the first parameter that is there twice, of which only the last would count.

    Those that are named in `lists` may be.
    """
    for name in params:
        if name not in lists and len(params.getlist(name)) > 1:
            return name
    return None


def url_problem(url: str) -> str | None:
    """Return what is wrong with an http(s) URL, or None. Nothing is resolved or connected to."""
    if not url:
        return "the URL is empty: write it, or remove the item"
    if len(url) > MAX_URL_CHARS:
        return f"the URL is longer than {MAX_URL_CHARS} characters: shorten it"
    if unsafe := _UNSAFE.search(url):
        before = url[: unsafe.start()]
        where = f"after {_shown(before)}" if before else "at its beginning"
        return (
            f"the URL has spaces, control or invisible characters {where}: "
            "remove or percent-encode them"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"not a URL ({error}): correct it"
    if parts.scheme not in ("http", "https"):
        return f"the URL must begin with http:// or https://, and is {_shown(url)}"
    if not parts.hostname:
        return "the URL has no host: write it after //"
    if parts.username is not None or parts.password is not None:
        return "the URL has a user name or password: remove them"
    if port == 0:
        return "the URL has port 0, which cannot be connected to: correct it"
    if several := _SEVERAL.search(url):
        return (
            f"there is another URL after {several[1]!r}: give each picture an item of its own, or "
            f"percent-encode the {several[1]!r}"
        )
    return None


def source_problem(url: str, s3_buckets: Collection[str]) -> str | None:
    """Return what is wrong with the URL of a picture, http(s) or s3://bucket/key, or None.

    An S3 key is taken literally: `%`, `?` and spaces are part of it.
    """
    if not url.startswith("s3://"):
        return url_problem(url)
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket or not key:
        return "an S3 URL must have the form s3://bucket/key"
    if len(url) > MAX_URL_CHARS or not key.isprintable():
        return (
            f"the S3 URL has more than {MAX_URL_CHARS} characters, or one that is not printable: "
            "rename the object"
        )
    if bucket not in s3_buckets:
        return (
            f"the bucket {bucket} is not allowed: ask the operator of this service to add it to "
            "PIQUEUE_S3_FETCH_BUCKETS"
        )
    return None


def _shown(url: str) -> str:
    """Quote the beginning of a URL without its query and what may be a password."""
    text = url.partition("?")[0].rpartition("@")[2]
    return repr(shortened(text, SHOWN_CHARS))
