"""Receives the body of a request on the event loop, into memory or a temporary file."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import IO, Annotated

import structlog
from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from worker.jobs.errors import JobRefused, TemporaryFolderUnavailable, TooLarge

# A larger body is written to a file.
MEMORY_BYTES = 1 << 18

log = structlog.get_logger()


@dataclass(frozen=True)
class ReceivedBody:
    """A complete body."""

    file: IO[bytes]
    size_bytes: int

    def rewound(self) -> IO[bytes]:
        """Return the file, at its beginning."""
        self.file.seek(0)
        return self.file


@asynccontextmanager
async def receive_body(
    request: Request, max_bytes: int | None = None
) -> AsyncIterator[ReceivedBody]:
    """Receive a body, however slowly it arrives; its file is open while the block runs.

    No thread waits for the client, and nothing of the request is done before all of it is here.

    Raises:
        TooLarge: it has more than `max_bytes`.
        TemporaryFolderUnavailable: the file cannot be written.
    """
    size_bytes = 0
    with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as file:
        async for part in request.stream():
            size_bytes += len(part)
            if max_bytes is not None and size_bytes > max_bytes:
                raise TooLarge(
                    f"the JSON body is larger than {max_bytes} bytes: send items as CSV or NDJSON"
                )
            with _file_errors():
                if size_bytes <= MEMORY_BYTES:
                    file.write(part)
                else:
                    await run_in_threadpool(file.write, part)
        with _file_errors():
            file.flush()
        yield ReceivedBody(file, size_bytes)


@contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or os.environ.get("TMPDIR", "/tmp")  # noqa: S108
        reason = error.strerror or str(error)
        log.error("temporary_folder_unavailable", folder=folder, reason=reason)
        raise TemporaryFolderUnavailable(
            f"the API cannot write to its temporary folder {folder} ({reason}): its operator must "
            "make room there, or set TMPDIR to another folder and restart the API"
        ) from error


async def _refuse_body(request: Request) -> None:
    body = (await request.body()).strip()
    if body not in (b"", b"{}"):
        advice = "leave it out"
        if request.url.path.endswith("/submit"):
            advice += ", and give the options of a draft when you open it with POST /jobs"
        raise JobRefused(f"the body has no effect here: {advice}")


# Of a route without a body. An empty object is allowed, which some clients send with each POST.
NoBodyDep = Annotated[None, Depends(_refuse_body)]
