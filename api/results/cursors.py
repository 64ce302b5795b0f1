"""Cursors: opaque text that tells where the next page begins."""

import base64
import binascii
import re
from typing import Annotated

from fastapi import Query

from worker.jobs.errors import CursorInvalid

PAGE_ITEMS = 100
MAX_PAGE_ITEMS = 1000

CursorQuery = Annotated[str | None, Query(description="`next_cursor` of the previous page")]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_PAGE_ITEMS)]


def to_job(job_id: str) -> str:
    """Make the cursor of the page of jobs after this one."""
    return _cursor("job", job_id)


def to_index(index: int) -> str:
    """Make the cursor of the page that begins with this item."""
    return _cursor("index", str(index))


def job_id(cursor: str | None) -> str | None:
    """Read a cursor that `to_job` made. Raises CursorInvalid."""
    return None if cursor is None else _read("job", r"job_\w+", cursor)


def index(cursor: str | None) -> int:
    """Read a cursor that `to_index` made, 0 without one. Raises CursorInvalid."""
    return 0 if cursor is None else int(_read("index", r"[0-9]{1,9}", cursor))


def _cursor(kind: str, value: str) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{value}".encode()).decode()


def _read(kind: str, form: str, cursor: str) -> str:
    try:
        found, _, value = base64.urlsafe_b64decode(cursor).decode().partition(":")
    except (binascii.Error, ValueError):
        found, value = "", ""
    if found != kind or not re.fullmatch(form, value, re.ASCII):
        raise CursorInvalid("the cursor is not valid here: use next_cursor of the previous page")
    return value
