"""Reads multipart forms."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser

from worker.jobs.errors import BodyUnreadable

MAX_FIELDS = 10


class _Parser(MultiPartParser):
    """A parser that knows whether the form was complete, which Starlette's does not check."""

    complete = False

    def on_end(self) -> None:
        """Note the closing boundary."""
        self.complete = True


@asynccontextmanager
async def read_form(request: Request, max_files: int) -> AsyncIterator[FormData]:
    """Read a multipart form; its files are open while the block runs.

    Raises:
        BodyUnreadable: it is no form, has too many parts, or ends early.
    """
    parser = _Parser(request.headers, request.stream(), max_files=max_files, max_fields=MAX_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BodyUnreadable(f"the form cannot be read: {error.message}") from None
    try:
        if not parser.complete:
            raise BodyUnreadable("the form ends before its closing boundary: send it again")
        yield form
    finally:
        await form.close()
