"""From a request to a job: the body is read by its content type, and its items are submitted."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request

from api.intake import bodies
from api.intake.admission import check_capacity
from api.intake.forms import read_form
from api.intake.idempotency import MakeEntry, create_once
from api.intake.items import ItemReceiver
from api.intake.job_builder import JobBuilder
from api.schemas import JobOptions
from api.services import Services
from worker.jobs.errors import TooLarge, UnsupportedBody
from worker.jobs.record import Job


@dataclass(frozen=True)
class Submission:
    """What a request asks for; `add_items_to` reads its items, and runs in a thread."""

    options: JobOptions
    add_items_to: Callable[[ItemReceiver], None]
    draft: bool = False
    # Erased as soon as its results are read.
    ephemeral: bool = False


@asynccontextmanager
async def read_submission(request: Request, services: Services) -> AsyncIterator[Submission]:
    """Read a request's body by its content type; its files are open while the block runs.

    Raises:
        JobRefused: the content type is not supported, or the body does not fit it.
    """
    settings, kind = services.settings, bodies.content_type(request)
    params = dict(request.query_params)
    stream = bodies.BodyStream(request)
    match kind:
        case bodies.JSON:
            job = bodies.read_json(await _read_all(request, settings.max_json_bytes))
            yield Submission(job.options, lambda items: bodies.add_json(job, items), job.draft)
        case bodies.FORM:
            async with read_form(request, settings.max_files) as form:
                options, files = bodies.form_parts(form.multi_items())
                named = [(bodies.file_name(file), file.file) for file in files]
                size = settings.max_item_bytes
                yield Submission(options, lambda items: bodies.add_files(named, size, items))
        case bodies.CSV:
            options = bodies.options_from_query(params)
            yield Submission(options, lambda items: bodies.add_csv(stream, params, items))
        case bodies.NDJSON:
            options = bodies.options_from_query(params)
            yield Submission(options, lambda items: bodies.add_ndjson(stream, items))
        case _:
            raise UnsupportedBody(
                f"the content type is {kind or 'missing'}: send {', '.join(bodies.CONTENT_TYPES)}"
            )


async def _read_all(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge(
                f"the JSON body is larger than {max_bytes} bytes: send CSV or NDJSON instead"
            )
    return bytes(body)


def submit(
    services: Services, owner: str, submission: Submission, key: str | None = None
) -> tuple[Job, bool]:
    """Create a job; return it, and whether an earlier request with this key had created it.

    Raises:
        PiqueueError: the job was refused; nothing of it is stored.
    """
    check_capacity(services, owner, 1)
    options, ephemeral = submission.options, submission.ephemeral

    def fingerprint() -> str:
        with JobBuilder(
            services, owner, options, check_only=True, with_fingerprint=True
        ) as builder:
            submission.add_items_to(builder)
        return builder.fingerprint

    def create(make_entry: MakeEntry) -> Job:
        with JobBuilder(
            services, owner, options, ephemeral=ephemeral, with_fingerprint=key is not None
        ) as builder:
            submission.add_items_to(builder)
            return builder.finish(make_entry(builder.fingerprint, builder.job_id))

    return create_once(services, owner, key, fingerprint, create)
