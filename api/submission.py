"""From the body of a request to a job: read, admitted, stored, rung for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from fastapi import Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from api.admission import SNIFF_BYTES, check_items, check_room, looks_like_image
from api.schemas import JobIn, JobOptions
from api.services import Services
from worker.jobs.errors import (
    BodyUnreadable,
    ItemProblem,
    ItemsRefused,
    JobRefused,
    TooLarge,
    UnsupportedBody,
    describe,
)
from worker.jobs.record import ItemSpec, Job, Lane, new_job_id
from worker.jobs.store import NewJob

# Jobs up to this size go ahead of bulk work.
INTERACTIVE_ITEMS = 64
# A small job is cut into this many chunks, so that it is scored by several threads at once.
SMALL_JOB_CHUNKS = 4
# Uploads of one request that are in memory at a time.
BLOBS_A_WRITE = 8


async def submit(request: Request, services: Services) -> Job:
    """Make a job of a request's body, by its content type.

    Raises:
        PiqueueError: the job was refused; nothing of it is kept.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    await run_in_threadpool(check_room, services.store, services.settings, 1)
    if content_type == "application/json":
        return await _submit_json(request, services)
    if content_type == "multipart/form-data":
        return await _submit_form(request, services)
    raise UnsupportedBody(
        f"the content type {content_type or 'of the body is missing'!r} is not one of "
        "application/json and multipart/form-data"
    )


async def _submit_json(request: Request, services: Services) -> Job:
    body = await request.body()
    try:
        job = JobIn.model_validate_json(body)
    except ValidationError as error:
        raise _unfit(error) from None
    if (job.urls is None) == (job.items is None):
        raise JobRefused("give either urls or items")
    specs = [ItemSpec(str(index), url) for index, url in enumerate(job.urls or [])] or [
        ItemSpec(str(index) if item.id is None else item.id, item.url)
        for index, item in enumerate(job.items or [])
    ]
    return await run_in_threadpool(create_job, services, job, specs)


async def _submit_form(request: Request, services: Services) -> Job:
    limits = services.settings
    async with request.form(max_files=limits.max_files, max_fields=10) as form:
        options = JobOptions()
        files: list[UploadFile] = []
        for name, value in form.multi_items():
            if name == "options" and isinstance(value, str):
                try:
                    options = JobOptions.model_validate_json(value)
                except ValidationError as error:
                    raise _unfit(error) from None
            elif name == "files" and isinstance(value, UploadFile):
                files.append(value)
            else:
                raise JobRefused(
                    f"the form has a part {name!r}: send pictures as files named `files` and "
                    "the options as JSON in a field named `options`"
                )
        uploads = [(file.filename or str(index), file.file) for index, file in enumerate(files)]
        return await run_in_threadpool(create_upload_job, services, options, uploads)


def create_upload_job(
    services: Services, options: JobOptions, uploads: Sequence[tuple[str, BinaryIO]]
) -> Job:
    """Make a job of uploaded files, given by name; the name is the item's id.

    Raises:
        PiqueueError: the job was refused; nothing of it is kept.
    """
    specs = [ItemSpec(name, filename=name) for name, _ in uploads]
    problems = [
        ItemProblem(index, name, detail)
        for index, (name, file) in enumerate(uploads)
        if (detail := _upload_problem(file, services.settings.max_item_bytes))
    ]
    payloads = dict(enumerate(file for _, file in uploads))
    return create_job(services, options, specs, problems, payloads)


def create_job(
    services: Services,
    options: JobOptions,
    specs: Sequence[ItemSpec],
    problems: Sequence[ItemProblem] = (),
    payloads: Mapping[int, BinaryIO] | None = None,
) -> Job:
    """Admit the items, store them, then the record, then ring for the first chunks.

    Raises:
        PiqueueError: the job was refused; nothing of it is kept.
    """
    settings, store = services.settings, services.store
    if not specs:
        raise JobRefused("the job has no items")
    if len(specs) > settings.max_items:
        raise TooLarge(f"{len(specs)} items; a job may hold {settings.max_items}")
    model = services.catalog.resolve(options.model)
    check_items(specs, problems)
    check_room(store, settings, len(specs))
    small = len(specs) <= INTERACTIVE_ITEMS
    job = NewJob(
        id=new_job_id(),
        model=model,
        lane=options.priority or (Lane.INTERACTIVE if small else Lane.BULK),
        total=len(specs),
        chunk_items=min(settings.chunk_items, -(-len(specs) // SMALL_JOB_CHUNKS)),
        ttl_s=settings.job_ttl_s,
        name=options.name,
        metadata=options.metadata,
    )
    try:
        for batch in _batches(payloads or {}):
            services.blobs.put(job.id, batch, job.ttl_s)
        for chunk, start in enumerate(range(0, job.total, job.chunk_items)):
            store.put_chunk(job.id, chunk, specs[start : start + job.chunk_items])
        ring = store.submit(job)
    except BaseException:
        store.abandon(job.id)
        services.blobs.erase(job.id)
        raise
    services.bell.ring(job.id, ring, job.lane)
    return store.job(job.id)


def _batches(payloads: Mapping[int, BinaryIO]) -> Iterator[dict[int, bytes]]:
    indexes = list(payloads)
    for start in range(0, len(indexes), BLOBS_A_WRITE):
        yield {index: payloads[index].read() for index in indexes[start : start + BLOBS_A_WRITE]}


def _upload_problem(file: BinaryIO, max_bytes: int) -> str | None:
    head = file.read(SNIFF_BYTES)
    size = file.seek(0, 2)
    file.seek(0)
    if not size:
        return "the file is empty"
    if size > max_bytes:
        return f"the file has {size} bytes; a picture may have {max_bytes}"
    if not looks_like_image(head):
        return "not a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF picture by its first bytes"
    return None


def _unfit(error: ValidationError) -> JobRefused:
    """Say where a body does not fit; unfit items are named by their row."""
    problems = []
    for found in error.errors():
        if found["type"] == "json_invalid":
            return BodyUnreadable(f"the body is not JSON: {found['msg']}")
        match found["loc"]:
            case ("items" | "urls", int(index), *rest):
                where = ".".join(str(part) for part in rest)
                detail = f"{where}: {found['msg']}" if where else found["msg"]
                problems.append(ItemProblem(index, None, detail))
    return ItemsRefused(problems) if problems else JobRefused(describe(error.errors()))
