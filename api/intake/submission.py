"""From a request to a job: the body is read by its content type, and its items are submitted."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from fastapi import Request

from api.intake import bodies
from api.intake.forms import Part, read_parts
from api.intake.idempotency import MakeEntry, create_once
from api.intake.items import ItemReceiver
from api.intake.job_builder import JobBuilder
from api.intake.received import MEMORY_BYTES, receive_body
from api.intake.tables import COLUMN_PARAMETERS, add_csv
from api.schemas import JobOptions
from api.services import Services
from api.shares import OwnerThreads
from api.urls import repeated
from worker.jobs.errors import JobRefused, UnsupportedBody

# Reading a larger table takes long,
LONG_TABLE_BYTES = MEMORY_BYTES
# and so does reading a larger form, whose files are only stored.
LONG_FORM_BYTES = 16_000_000


@dataclass(frozen=True)
class Submission:
    """What a request asks for; `add_items_to` reads its items, in one of `threads`."""

    options: JobOptions
    add_items_to: Callable[[ItemReceiver], None]
    threads: OwnerThreads
    draft: bool = False
    # Erased as soon as its results are read.
    ephemeral: bool = False


@asynccontextmanager
async def read_submission(
    request: Request, services: Services, owner: str
) -> AsyncIterator[Submission]:
    """Read a request's body by its content type; it is there while the block runs.

    Raises:
        JobRefused: the content type is not supported, or the body does not fit it.
    """
    settings, kind = services.settings, bodies.content_type(request)
    if kind not in bodies.CONTENT_TYPES:
        raise UnsupportedBody(
            f"the content type is {kind or 'missing'}: send {', '.join(bodies.CONTENT_TYPES)}"
        )
    params, is_table = dict(request.query_params), kind in (bodies.CSV, bodies.NDJSON)
    if params and not is_table:
        raise JobRefused(
            f"the URL has the parameter {next(iter(params))}: send options in the body"
        )
    options = JobOptions()
    if is_table:
        columns = COLUMN_PARAMETERS if kind == bodies.CSV else ()
        given = {name: value for name, value in params.items() if name not in columns}
        options = bodies.options_from_query(given)
    if name := repeated(request.query_params):
        raise JobRefused(f"the parameter {name} is there twice: give it once")
    max_bytes = settings.max_json_bytes if kind == bodies.JSON else None
    async with receive_body(request, max_bytes) as body:
        is_long = body.size_bytes > (LONG_FORM_BYTES if kind == bodies.FORM else LONG_TABLE_BYTES)
        threads = services.long_threads if is_long else services.intake_threads

        def parts(max_bytes: int) -> Iterator[Part]:
            return read_parts(body.rewound(), request.headers["content-type"], max_bytes)

        match kind:
            case bodies.JSON:
                async with services.large_json.slot(owner) if is_long else nullcontext():
                    job = await threads.run(owner, bodies.read_json, body.rewound())
                    add = partial(bodies.add_json, job)
                    yield Submission(job.options, add, threads, job.draft)
            case bodies.FORM:
                options = await threads.run(
                    owner, bodies.form_options, parts(bodies.MAX_OPTIONS_BYTES), settings.max_files
                )
                size = settings.max_item_bytes
                yield Submission(
                    options, lambda items: bodies.add_files(parts(size), items), threads
                )
            case bodies.CSV:
                yield Submission(
                    options, lambda items: add_csv(body.rewound(), params, items), threads
                )
            case _:
                yield Submission(
                    options, lambda items: bodies.add_ndjson(body.rewound(), items), threads
                )


def submit(
    services: Services,
    owner: str,
    submission: Submission,
    key: str | None = None,
    *,
    awaited: bool = False,
) -> tuple[str, bool]:
    """Create a job; return its id, and whether an earlier request with this key had created it.

    With `awaited`, its caller waits for its end.

    Raises:
        PiqueueError: the job was refused; nothing of it is stored.
    """
    options, ephemeral = submission.options, submission.ephemeral

    def fingerprint() -> str:
        with JobBuilder(
            services, owner, options, check_only=True, with_fingerprint=True
        ) as builder:
            submission.add_items_to(builder)
        return builder.fingerprint

    def create(make_entry: MakeEntry) -> str:
        with JobBuilder(
            services,
            owner,
            options,
            ephemeral=ephemeral,
            awaited=awaited,
            with_fingerprint=key is not None,
        ) as builder:
            submission.add_items_to(builder)
            return builder.finish(make_entry(builder.fingerprint, builder.job_id))

    return create_once(services, owner, key, fingerprint, create)
