"""From a request to a job: its items are read by content type and taken in, once a key."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request

from api.intake import bodies
from api.intake.admission import check_memory, check_room, in_line, item_problem
from api.intake.bodies import Sink
from api.intake.idempotency import Noting, once
from api.intake.job_builder import JobBuilder
from api.intake.uploads import Uploads
from api.schemas import JobOptions
from api.services import Services
from worker.jobs.errors import (
    LISTED_PROBLEMS,
    ItemProblem,
    ItemsRefused,
    JobNotDraft,
    JobRefused,
    TooLarge,
    UnsupportedBody,
)
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.new_job import NewJob
from worker.jobs.record import CsvShape, Job, JobStatus, new_job_id

DRAFT_WRITE_ITEMS = 500

Feed = Callable[[Sink], None]


@dataclass(frozen=True)
class Submission:
    """What a request asks for; `feed` hands its items to a sink, from a thread."""

    options: JobOptions
    feed: Feed
    draft: bool = False
    # Erased as soon as it is read.
    fleeting: bool = False


@asynccontextmanager
async def reading(request: Request, services: Services) -> AsyncIterator[Submission]:
    """Read a request's body by its content type; its files are open while the block runs.

    Raises:
        JobRefused: the body is not one of ours.
    """
    settings, kind = services.settings, bodies.content_type(request)
    params = dict(request.query_params)
    stream = bodies.BodyStream(request)
    match kind:
        case bodies.JSON:
            job = bodies.read_json(await _read_all(request, settings.max_json_bytes))
            yield Submission(job.options, lambda sink: bodies.add_json_items(job, sink), job.draft)
        case bodies.FORM:
            async with request.form(max_files=settings.max_files, max_fields=10) as form:
                options, files = bodies.form_parts(form.multi_items())
                named = [
                    (bodies.file_name(file) or str(at), file.file) for at, file in enumerate(files)
                ]
                size = settings.max_item_bytes
                yield Submission(options, lambda sink: bodies.add_files(named, size, sink))
        case bodies.CSV:
            yield Submission(
                bodies.options_from_query(params),
                lambda sink: bodies.add_csv_items(stream, params, sink),
            )
        case bodies.NDJSON:
            yield Submission(
                bodies.options_from_query(params),
                lambda sink: bodies.add_ndjson_items(stream, sink),
            )
        case _:
            raise UnsupportedBody(
                f"the content type is {kind or 'missing'}: send {', '.join(bodies.CONTENT_TYPES)}"
            )


async def _read_all(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge(f"a JSON body may have {max_bytes} bytes: send CSV or NDJSON instead")
    return bytes(body)


def take_in(
    services: Services, owner: str, submission: Submission, key: str | None = None
) -> tuple[Job, bool]:
    """Make a job; gives it, and whether it is the one that `key` made before.

    Raises:
        PiqueueError: the job was refused; nothing of it is kept.
    """
    check_room(services, owner, 1)
    if key is None:
        fleeting = submission.fleeting
        with JobBuilder(services, owner, submission.options, fleeting=fleeting) as intake:
            submission.feed(intake)
            return intake.finish(), False

    def fingerprint() -> str:
        with JobBuilder(services, owner, submission.options, keep=False, compared=True) as intake:
            submission.feed(intake)
        return intake.fingerprint

    def make(noting: Noting) -> Job:
        with JobBuilder(services, owner, submission.options, compared=True) as intake:
            submission.feed(intake)
            return intake.finish(noting(intake.fingerprint, intake.job_id))

    return once(services, owner, key, fingerprint, make)


def open_draft(services: Services, owner: str, options: JobOptions) -> Job:
    """Begin a draft, which takes items until it is submitted."""
    draft = NewJob(
        id=new_job_id(),
        owner=owner,
        model=services.catalog.resolve(options.model),
        ttl_s=services.settings.draft_ttl_s,
        name=options.name,
        metadata=options.metadata,
        webhook_url=options.webhook_url,
        options=options.given,
    )
    services.store.open_draft(draft)
    return services.store.job(draft.id)


def submit_draft(services: Services, owner: str, job_id: str) -> Job:
    """Make a job of a draft.

    Raises:
        PiqueueError: it is none, or was refused; it stays a draft then, and takes no more items.
    """
    draft = services.store.job(job_id)
    if draft.counts.total == 0:
        raise JobRefused("the draft has no items yet: add some first")
    services.store.close_draft(job_id)
    # The version it was begun with, whatever was promoted since.
    model = f"{draft.model.name}@{draft.model.version}"
    options = JobOptions.model_validate({**services.store.options(job_id), "model": model})
    with JobBuilder(services, owner, options, draft_id=job_id) as intake:
        for specs in services.store.draft_items(job_id, DRAFT_WRITE_ITEMS):
            for spec in specs:
                intake.add(spec)
        return intake.finish()


class DraftSink:
    """Adds the items of one request to a draft, each once by its id, so a request may be sent
    again. Items that came before an unfit one stay."""

    def __init__(self, services: Services, draft: Job) -> None:
        self.count = 0
        self._services = services
        self._draft = draft
        self._pending: list[ItemSpec] = []
        self._uploads = Uploads(services.blobs, draft.id, services.settings.draft_ttl_s)
        self._problems: list[ItemProblem] = []
        self._problem_count = 0

    def shaped(self, csv: CsvShape) -> None:
        """Pass over the layout: a draft may hold rows of many tables."""

    def refuse(self, detail: str, item_id: str | None = None) -> None:
        """Count the next item as unfit."""
        self._problem_count += 1
        if len(self._problems) < LISTED_PROBLEMS:
            self._problems.append(ItemProblem(self.count, item_id, detail))
        self.count += 1

    def add(self, spec: ItemSpec, payload: bytes | None = None, line: int | None = None) -> None:
        """Take the next item: of a URL, or with its payload, which is stored before it; `line` is
        where the body has it."""
        settings = self._services.settings
        if problem := item_problem(spec, payload, settings):
            self.refuse(in_line(problem, line), spec.id)
            return
        self.count += 1
        if payload is not None:
            check_memory(self._services.load)
            self._uploads.add(spec.id, payload)
        self._pending.append(spec)
        if len(self._pending) == DRAFT_WRITE_ITEMS:
            self._write()

    def finish(self) -> Job:
        """Give the draft with its new items.

        Raises:
            ItemsRefused: some of the items cannot be scored.
        """
        if self._pending:
            self._write()
        if self._problems:
            raise ItemsRefused(self._problems, self._problem_count)
        return self._services.store.job(self._draft.id)

    def _write(self) -> None:
        services = self._services
        self._uploads.write()
        services.store.add(self._draft.id, self._pending, services.settings.max_items)
        self._pending = []


def add_to_draft(services: Services, draft: Job, feed: Feed) -> Job:
    """Add items to a draft; gives it with its new count.

    Raises:
        PiqueueError: the draft takes no more, or some items cannot be scored.
    """
    check_room(services, draft.owner, draft.counts.total + 1)
    if draft.status is not JobStatus.DRAFT:
        raise JobNotDraft(f"{draft.id} is already submitted and accepts no more items")
    sink = DraftSink(services, draft)
    feed(sink)
    return sink.finish()
