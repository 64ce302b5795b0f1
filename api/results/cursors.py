"""Cursors: opaque text that says where the next page begins."""

import base64
import binascii
import re
from typing import Annotated

from fastapi import Query

from worker.jobs.errors import CursorInvalid

PAGE_ITEMS = 100
MAX_PAGE_ITEMS = 1000

CursorQuery = Annotated[str | None, Query(description="`next_cursor` of the page before")]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_PAGE_ITEMS)]


def to_job(job_id: str) -> str:
    """Make the cursor of a page of jobs that begins after this one."""
    return _cursor("job", job_id)


def to_index(index: int) -> str:
    """Make the cursor of a page of results that begins with this item."""
    return _cursor("index", str(index))


def job_id(cursor: str) -> str:
    """Read what `to_job` made. Raises CursorInvalid."""
    return _read("job", r"job_\w+", cursor)


def index(cursor: str) -> int:
    """Read what `to_index` made. Raises CursorInvalid."""
    return int(_read("index", r"[0-9]{1,9}", cursor))


def _cursor(kind: str, value: str) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{value}".encode()).decode()


def _read(kind: str, form: str, cursor: str) -> str:
    try:
        found, _, value = base64.urlsafe_b64decode(cursor).decode().partition(":")
    except (binascii.Error, ValueError):
        found, value = "", ""
    if found != kind or not re.fullmatch(form, value, re.ASCII):
        raise CursorInvalid("the cursor is not one of ours: use next_cursor of the page before")
    return value
