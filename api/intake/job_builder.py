"""Builds a job: each item is checked and stored as it arrives, the job's record is written last."""

import hashlib
import json
import math
from array import array
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from random import randrange
from typing import Any, Self

import structlog

from api.intake.admission import (
    check_capacity,
    check_memory,
    check_room,
    check_upload_bytes,
    upload_limit_bytes,
)
from api.intake.items import ItemReceiver
from api.intake.numbers import NumberColumns
from api.intake.tables import shown
from api.intake.uploads import Uploads
from api.results.table import Layout
from api.schemas import JobOptions
from api.services import Services
from worker.jobs.errors import (
    JobRefused,
    LedgerUnavailable,
    OverQuota,
    QueueFull,
    StorageUnavailable,
)
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.api_keys import ANYONE
from worker.jobs.ledger.layout import ExpiringKey, NewJob, Shape, SubmissionLimits
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import Job, Lane, new_job_id
from worker.jobs.storage.thumbnails import MOST_BYTES
from worker.jobs.traces import span, traceparent

# Jobs up to this size go ahead of bulk work,
INTERACTIVE_ITEMS = 64
# and are divided into this many chunks, so that several threads score one at once.
SMALL_JOB_CHUNKS = 4
SAMPLE_ITEMS = 50
# Kept features are scored so fast that smaller chunks would mostly cost round trips.
RESCORED_CHUNK_ITEMS = 512
# Chunks written at once: a large job is not kept in memory, nor is each chunk a round trip.
WRITE_CHUNKS = 16
# After a failed write S3 may still complete it, at the latest after this time.
ABANDONED_S = 60
# An ephemeral job expires so long after its caller has stopped waiting.
EPHEMERAL_S = 30
# A million ids are compared in as many parts, so that no sort blocks other requests.
ID_PARTS = 16

log = structlog.get_logger()


class JobBuilder(ItemReceiver):
    """One submission as a context manager; leaving it before `finish` erases what was stored.

    With `check_only`, nothing is stored. An `ephemeral` job is in no list, expires soon after its
    caller has stopped waiting, and its results are not written to S3. The caller of an `awaited`
    job waits for its end. With `with_fingerprint`,
    items count in `fingerprint`. With `rescore_of`, the features of that job are scored. With
    `draft_id`, that draft is submitted, and kept if its submission is refused.
    """

    def __init__(
        self,
        services: Services,
        owner: str,
        options: JobOptions,
        *,
        check_only: bool = False,
        ephemeral: bool = False,
        awaited: bool = False,
        with_fingerprint: bool = False,
        parent_job: str | None = None,
        rescore_of: str | None = None,
        draft_id: str | None = None,
    ) -> None:
        super().__init__(services.settings)
        self.job_id = draft_id or new_job_id()
        self._services = services
        self._owner = owner
        self._options = options
        self._check_only = check_only
        self._ephemeral, self._awaited = ephemeral, awaited
        self._parts = None if ephemeral else services.parts
        self._parent_job, self._rescore_of = parent_job, rescore_of
        # Its columns of numbers are those of the other job: results of both have one schema.
        self._derived = parent_job is not None or rescore_of is not None
        self._layout, self._numbers = Layout(), NumberColumns()
        self._model = services.catalog.resolve(options.reference)
        if options.keep_features:
            check_features(services, self._model)
        self._is_draft = draft_id is not None
        self._erase_on_exit = not check_only and not self._is_draft
        self._ttl_s = options.expires_in_s or services.settings.job_ttl_s
        if ephemeral:
            self._ttl_s = math.ceil(services.settings.sync_timeout_s) + EPHEMERAL_S
        check = partial(check_upload_bytes, services, owner)
        self._uploads = Uploads(services.blobs, self.job_id, self._ttl_s, check)
        self._chunk_items = services.settings.chunk_items
        if rescore_of is not None:
            self._chunk_items = max(self._chunk_items, RESCORED_CHUNK_ITEMS)
        self._chunk_count = 0
        self._pending: list[ItemSpec] = []
        # Eight bytes an item, so that a million ids are compared in little memory.
        self._id_hashes, self._lines = array("q"), array("q")
        # A uniform sample of the URL items, of up to SAMPLE_ITEMS.
        self.sample: list[ItemSpec] = []
        self._with_fingerprint = with_fingerprint
        self._span = span("validate" if check_only else "submit", job_id=self.job_id)
        self._digest = hashlib.sha256(options.model_dump_json().encode())

    def __enter__(self) -> Self:
        self._span_attributes = self._span.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._span_attributes["items"] = self.count
        self._span.__exit__(kind, error, trace)
        if not self._erase_on_exit or not self._services.store.abandon(self.job_id):
            return
        if isinstance(error, StorageUnavailable):
            # The workers erase it later: the caller has waited for S3 once already.
            self._services.blobs.keep(self.job_id, ABANDONED_S)
        else:
            self._services.blobs.erase(self.job_id)

    @property
    def fingerprint(self) -> str:
        """A hash of the options and all items so far."""
        return self._digest.hexdigest()

    def _problem(self, spec: ItemSpec) -> str | None:
        return self._layout.add(spec) if self.csv is None else None

    def _accept(self, spec: ItemSpec, payload: bytes | None) -> None:
        self._id_hashes.append(hash(spec.id))
        self._lines.append(self._line or 0)
        if self._with_fingerprint:
            self._digest.update(json.dumps(spec.to_row()).encode())
            self._digest.update(hashlib.sha256(payload or b"").digest())
        if self.problems.count:
            return
        if self._check_only:
            if spec.url is not None:
                self._add_to_sample(spec)
            return
        if payload is not None:
            check_room(self._services)
            self._uploads.add(spec.id, payload)
        if spec.columns and not self._derived:
            self._numbers.add(spec.columns)
        self._pending.append(spec)
        if len(self._pending) >= WRITE_CHUNKS * self._chunk_items:
            check_capacity(self._services, self._owner, self.count)
            first, chunks = self._chunk_count, self._take_chunks()
            self._services.store.put_chunk(self.job_id, first, *chunks.values())

    def finish(self, entry: ExpiringKey | None = None) -> str:
        """Write the job's record, with the entry of its idempotency key, and wake workers.

        Returns the id of the job.

        Raises:
            PiqueueError: the submission is refused.
        """
        self._check_items()
        services, store = self._services, self._services.store
        small = self.count <= INTERACTIVE_ITEMS
        if small:
            self._chunk_items = min(self._chunk_items, -(-self.count // SMALL_JOB_CHUNKS))
        uploads, chunks = self._uploads.finish(), self._take_chunks()
        lane = self._options.priority or (Lane.INTERACTIVE if small else Lane.BULK)
        shape = Shape(lane, self.count, self._chunk_items, self._options.budget(self.count))
        job = self._new_job()
        upload_bytes = self._uploads.byte_count
        if job.keep_features:
            check_upload_bytes(services, self._owner, upload_bytes)
        check_memory(services.load)
        if self._parts is not None:
            self._parts.expect(self.job_id, job.ttl_s)
        if job.thumbnails:
            services.blobs.expect_thumbnails(self.job_id, job.ttl_s)
        if job.keep_features:
            services.blobs.put(self.job_id, {}, job.ttl_s)
        if self._is_draft:
            # If it is refused now, it may be submitted later.
            services.blobs.keep(self.job_id, max(job.ttl_s, self._settings.draft_ttl_s))
        quota = math.inf if self._owner == ANYONE else self._settings.quota_items
        upload_limit = upload_limit_bytes(services) if upload_bytes else math.inf
        limits = SubmissionLimits(quota, self._settings.max_backlog_items, upload_limit)
        try:
            store.submit(job, shape, entry, chunks, uploads, limits, upload_bytes)
        except (OverQuota, QueueFull):
            check_capacity(services, self._owner, self.count)  # says which limit
            check_upload_bytes(services, self._owner, upload_bytes)
            raise
        self._erase_on_exit = False
        if self._is_draft:
            # If this fails, the job is accepted nevertheless.
            with suppress(LedgerUnavailable):
                services.blobs.keep(self.job_id, job.ttl_s)
        log.info("job_submitted", job_id=self.job_id, items=self.count, lane=lane)
        return self.job_id

    def check(self) -> None:
        """Check the submission as a whole.

        Raises:
            PiqueueError: it is empty, has invalid items or duplicate ids, or exceeds a limit.
        """
        self._check_items()
        check_capacity(self._services, self._owner, self.count)

    def _check_items(self) -> None:
        if not self.count:
            raise JobRefused("the job has no items: send at least one")
        if not self.problems.count:
            self._find_duplicate_ids()
        self.problems.check()

    def _new_job(self) -> NewJob:
        shape = self.csv or self._layout.shape()
        if not self._derived:
            shape = replace(shape, numbers=self._numbers.found)
        return NewJob(
            id=self.job_id,
            owner=self._owner,
            model=self._model,
            ttl_s=self._ttl_s,
            listed=not self._ephemeral,
            awaited=self._awaited,
            name=self._options.name,
            metadata=self._options.metadata,
            parent_job=self._parent_job,
            rescore_of=self._rescore_of,
            csv=shape,
            webhook_url=self._options.webhook_url,
            use_cache=self._options.use_cache,
            keep_features=self._options.keep_features,
            parts=self._parts is not None,
            thumbnails=self._thumbnail_count(),
            options=self._options.given,
            traceparent=traceparent(),
        )

    def _thumbnail_count(self) -> int:
        """How many items get thumbnails: none if the caller may not store as much."""
        if not self._options.thumbnails:
            return 0
        services, count = self._services, min(self.count, self._settings.max_thumbnails)
        stored = services.load.upload_bytes(self._owner) + self._uploads.byte_count
        fits = stored + count * MOST_BYTES <= upload_limit_bytes(services)
        return count if fits else 0

    def _add_to_sample(self, spec: ItemSpec) -> None:
        """Sample with a reservoir: every URL item is as likely as any other to stay."""
        if len(self.sample) < SAMPLE_ITEMS:
            self.sample.append(spec)
        elif (place := randrange(self.count)) < SAMPLE_ITEMS:  # noqa: S311
            self.sample[place] = spec

    def _find_duplicate_ids(self) -> None:
        if not any(self._has_duplicates(part) for part in range(ID_PARTS)):
            return
        first_index: dict[int, int] = {}
        for index, hashed in enumerate(self._id_hashes):
            first = first_index.setdefault(hashed, index)
            if first != index:
                pair = f"item {first} and item {index}"
                if self._lines[index]:
                    pair = f"line {self._lines[first]} and line {self._lines[index]}"
                item_id = self._pending_id(index)
                same = "the same id" if item_id is None else f"the same id {shown(item_id)}"
                self.problems.add(index, item_id, f"{pair} have {same}: ids must differ")

    def _pending_id(self, index: int) -> str | None:
        """Return the id of an item, or None if it is written already, or not kept at all."""
        at = index - (self.count - len(self._pending))
        return self._pending[at].id if at >= 0 else None

    def _has_duplicates(self, part: int) -> bool:
        hashes = sorted(hashed for hashed in self._id_hashes if hashed % ID_PARTS == part)
        return any(one == next_one for one, next_one in pairwise(hashes))

    def _take_chunks(self) -> dict[int, list[ItemSpec]]:
        """Give the pending items as chunks by index."""
        pending, self._pending = self._pending, []
        size, first = self._chunk_items, self._chunk_count
        starts = range(0, len(pending), size)
        self._chunk_count += len(starts)
        return {first + start // size: pending[start : start + size] for start in starts}


def check_features(services: Services, model: ModelCard) -> None:
    """Raise JobRefused if no features of a model can be kept."""
    if not any(part.backbone for part in model.parts or (model,)):
        raise JobRefused(
            f"keep_features: {model.name} is one network, which gives no features: name a model "
            "that has a backbone in GET /models, or leave keep_features out"
        )
    if not services.blobs.keeps_features:
        raise JobRefused(
            "keep_features: this Piqueue has no store for them: ask its operator to set "
            "PIQUEUE_STORAGE_URL to a folder or a bucket, or leave keep_features out"
        )


def pinned_options(services: Services, job: Job) -> JobOptions:
    """The options of a job or draft, with the versions of its models at that time."""
    options = services.store.options(job.id)
    if several := job.model.several:
        options["models"] = [model.text for model in several]
    else:
        options |= {"model": job.model.text, "models": None}
    return JobOptions.model_validate(options)
