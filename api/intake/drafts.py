"""Drafts: jobs that take items over several requests before they are submitted."""

import asyncio
import hashlib
import json
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from api.intake.admission import check_capacity, check_room, check_upload_bytes
from api.intake.idempotency import check_key
from api.intake.items import ItemReceiver, at_line
from api.intake.job_builder import JobBuilder, check_features, pinned_options
from api.intake.submission import Submission
from api.intake.uploads import BUFFER_BYTES
from api.schemas import JobOptions
from api.services import Services
from worker.jobs.errors import (
    DraftChange,
    JobNotDraft,
    JobNotFound,
    JobRefused,
    LedgerUnavailable,
    OverQuota,
    PiqueueError,
)
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.layout import NewJob
from worker.jobs.ledger.store import IdState
from worker.jobs.record import Job, JobStatus, new_job_id

WRITE_ITEMS = 500
FINGERPRINT_BYTES = 16
RETRY_S = 30
TAKEN = (
    "the draft has another item of this id, with another file, URL or columns: give this one "
    "another id, or delete the draft and start again"
)


def open_draft(services: Services, owner: str, options: JobOptions) -> Job:
    """Create a draft without items.

    Raises:
        OverQuota: the caller has too many.
    """
    most = services.settings.quota_drafts
    if services.store.drafts_of(owner).draft_count >= most:
        raise OverQuota(f"you have {most} drafts: submit or delete some first", RETRY_S)
    model = services.catalog.resolve(options.reference)
    if options.keep_features:
        check_features(services, model)
    draft = NewJob(
        id=new_job_id(),
        owner=owner,
        model=model,
        ttl_s=services.settings.draft_ttl_s,
        name=options.name,
        metadata=options.metadata,
        webhook_url=options.webhook_url,
        options=options.given,
    )
    services.store.open_draft(draft)
    return services.store.job(draft.id)


@asynccontextmanager
async def in_use(services: Services, draft: Job) -> AsyncIterator[None]:
    """Keep a draft from being idle while the block runs, however slowly a body arrives."""

    async def keep() -> None:
        while True:
            with suppress(LedgerUnavailable):
                await run_in_threadpool(services.store.touch_draft, draft.id)
            await asyncio.sleep(services.settings.draft_idle_s / 3)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()


def submit_draft(services: Services, draft: Job) -> str:
    """Submit a draft as a job; return its id.

    Raises:
        PiqueueError: it is no draft, or the job was refused; it then remains a draft that takes
            no more items.
    """
    if draft.counts.total == 0:
        raise JobRefused("the draft has no items: add some before you submit it")
    services.store.close_draft(draft.id)
    # The model version of the time when the draft was created, even if another is current now.
    options = pinned_options(services, draft)
    with JobBuilder(services, draft.owner, options, draft_id=draft.id) as builder:
        for specs in services.store.draft_items(draft.id, WRITE_ITEMS):
            for spec in specs:
                builder.add(spec)
        return builder.finish()


def add_to_draft(
    services: Services, draft: Job, submission: Submission, key: str | None = None
) -> tuple[Job, DraftChange]:
    """Add items to a draft; return it with its new count, and what was added.

    An item that the draft has already is skipped, so a request with ids, or with an idempotency
    `key`, may be sent again. Another item of the same id is refused. Items that came before an
    invalid one are kept.

    Raises:
        PiqueueError: the draft takes no more items, or some are invalid; the error says what was
            added before.
    """
    check_capacity(services, draft.owner, services.store.drafts_of(draft.owner).item_count + 1)
    if draft.status is not JobStatus.DRAFT:
        raise JobNotDraft(f"{draft.id} is not a draft: send more items as a new job")
    if given := submission.options.given:
        raise JobRefused(
            f"items have the option {next(iter(given))}: give options when you create the draft"
        )
    check_key(key)
    writer = _DraftWriter(services, draft, key)
    try:
        try:
            submission.add_items_to(writer)
        finally:
            writer.write()
        writer.problems.check()
    except PiqueueError as error:
        error.draft_change = writer.change
        raise
    return services.store.job(draft.id), writer.change


@dataclass(frozen=True)
class _Pending:
    """A received item that is not written yet; `index` and `line` are its place in the request."""

    index: int
    line: int | None
    spec: ItemSpec
    payload: bytes | None
    fingerprint: bytes
    # What stands for the id, which it does not have, in the request and in each repetition.
    name: bytes

    def with_id(self, item_id: str) -> ItemSpec:
        """Return the item under the id that the draft gives it."""
        named = self.spec.filename is not None
        return self.spec._replace(id=item_id, filename=item_id if named else None)


class _DraftWriter(ItemReceiver):
    """Adds the items of one request to a draft, uploads before the items they belong to."""

    def __init__(self, services: Services, draft: Job, key: str | None) -> None:
        super().__init__(services.settings)
        self.change = DraftChange()
        self._key = key
        self._services = services
        self._draft = draft
        self._pending: list[_Pending] = []
        self._pending_bytes = 0

    def default_id(self) -> str:
        """Return no id: the draft numbers the item when it is written."""
        return ""

    def _accept(self, spec: ItemSpec, payload: bytes | None) -> None:
        if payload is not None:
            check_room(self._services)
            self._pending_bytes += len(payload)
        digest = hashlib.sha256(json.dumps(spec.to_row()).encode())
        digest.update(hashlib.sha256(payload or b"").digest())
        fingerprint, index = digest.digest()[:FINGERPRINT_BYTES], self.count - 1
        name = b""
        if self._key is not None and not spec.id:
            # Also with its first byte, no id in UTF-8 is such a name.
            name = b"\xff" + hashlib.sha256(f"{index} {self._key}".encode()).digest()
        self._pending.append(_Pending(index, self._line, spec, payload, fingerprint, name))
        if len(self._pending) == WRITE_ITEMS or self._pending_bytes >= BUFFER_BYTES:
            self.write()

    def write(self) -> None:
        """Write the pending items."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if not pending:
            return
        store, job_id = self._services.store, self._draft.id
        reserved = store.reserve(
            job_id, [(item.spec.id, item.fingerprint, item.name) for item in pending]
        )
        payloads: dict[str, bytes] = {}
        specs: list[tuple[bytes, ItemSpec]] = []
        for item, (item_id, state) in zip(pending, reserved, strict=True):
            if state is IdState.TAKEN:
                detail = at_line(item.line, TAKEN)
                self.problems.add(item.index, item_id, detail)
            elif state is IdState.ADDED:
                self.change.add(item_id, is_new=False)
            else:
                specs.append((item.fingerprint, item.with_id(item_id)))
                if item.payload is not None:
                    payloads[item_id] = item.payload
        upload_bytes = sum(map(len, payloads.values()))
        if payloads:
            check_upload_bytes(self._services, self._draft.owner, upload_bytes)
            self._services.blobs.put(job_id, payloads, self._settings.draft_ttl_s)
        if specs:
            try:
                added = store.add(job_id, specs, self._settings.max_items, upload_bytes)
            except JobNotDraft:
                self._keep_uploads_of_job()
                raise
            for (_, spec), is_new in zip(specs, added, strict=True):
                self.change.add(spec.id, is_new=is_new)

    def _keep_uploads_of_job(self) -> None:
        """Let the uploads of a draft that was submitted meanwhile live as long as the job."""
        with suppress(JobNotFound):
            job = self._services.store.job(self._draft.id)
            if job.status is not JobStatus.DRAFT:
                left_s = math.ceil(job.expires_ms / 1000 - time.time())
                self._services.blobs.keep(job.id, left_s)
