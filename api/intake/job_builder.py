"""Taking in a submission: each item is checked and stored as it comes, the job is made last."""

import hashlib
import json
from array import array
from itertools import pairwise
from random import randrange
from types import TracebackType
from typing import Self

import structlog

from api.intake.admission import check_memory, check_room, in_line, item_problem
from api.intake.uploads import Uploads
from api.results.table import Layout
from api.schemas import JobOptions
from api.services import Services
from worker.jobs.errors import (
    LISTED_PROBLEMS,
    ItemProblem,
    ItemsRefused,
    JobRefused,
    StorageUnavailable,
    TooLarge,
)
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.new_job import ExpiringKey, NewJob, Shape
from worker.jobs.record import CsvShape, Job, Lane, new_job_id
from worker.jobs.traces import span, traceparent

# Jobs up to this size go ahead of bulk work,
INTERACTIVE_ITEMS = 64
# and are cut into this many chunks, so that several threads score one at once.
SMALL_JOB_CHUNKS = 4
SAMPLE_ITEMS = 50
# Chunks written at once; a large job is not held in memory, nor is each chunk a round trip.
WRITE_CHUNKS = 16
# By then S3 has what was being written as it failed.
ABANDONED_S = 60
# A million ids are compared in as many parts, so that no sort keeps other requests waiting.
ID_PARTS = 16

log = structlog.get_logger()


class JobBuilder:
    """One submission; leaving its block before `finish` forgets all that was stored of it.

    With `keep` false it is only checked. The results of a `fleeting` one are not written to S3.
    With `compared` it has a `fingerprint`. With `draft_id` it submits that draft, which stays.
    """

    def __init__(
        self,
        services: Services,
        owner: str,
        options: JobOptions,
        *,
        keep: bool = True,
        fleeting: bool = False,
        compared: bool = False,
        parent_job: str | None = None,
        draft_id: str | None = None,
    ) -> None:
        self.count = 0
        self.job_id = draft_id or new_job_id()
        self._services = services
        self._owner = owner
        self._options = options
        self._keep = keep
        self._parts = None if fleeting else services.parts
        self._parent_job = parent_job
        self._csv: CsvShape | None = None
        self._layout = Layout()
        self._model = services.catalog.resolve(options.model)
        self._forget = keep and draft_id is None
        self._ttl_s = options.expires_in_s or services.settings.job_ttl_s
        self._uploads = Uploads(services.blobs, self.job_id, self._ttl_s)
        self._problems: list[ItemProblem] = []
        self._problem_count = 0
        self._chunk_items = services.settings.chunk_items
        self._chunks_put = 0
        self._pending: list[ItemSpec] = []
        # Eight bytes an item, so that a million ids are compared in little memory.
        self._id_hashes = array("q")
        # Up to SAMPLE_ITEMS of the URL items, each as likely as any other to be among them.
        self.sample: list[ItemSpec] = []
        self._compared = compared
        self._span = span("take_in" if keep else "check", job_id=self.job_id)
        self._digest = hashlib.sha256(options.model_dump_json().encode())

    def __enter__(self) -> Self:
        self._shown = self._span.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shown["items"] = self.count
        self._span.__exit__(kind, error, trace)
        if not self._forget or not self._services.store.abandon(self.job_id):
            return
        if isinstance(error, StorageUnavailable):
            # Left to the workers: the caller has waited for S3 once already.
            self._services.blobs.keep(self.job_id, ABANDONED_S)
        else:
            self._services.blobs.erase(self.job_id)

    @property
    def fingerprint(self) -> str:
        """Give a hash of the options and all items so far."""
        return self._digest.hexdigest()

    def shaped(self, csv: CsvShape) -> None:
        """ExpiringKey how the table that the items come from is laid out."""
        self._csv = csv

    def refuse(self, detail: str, item_id: str | None = None) -> None:
        """Count the next item as unfit; the submission will be refused, naming it."""
        self._refuse(ItemProblem(self.count, item_id, detail))
        self.count += 1

    def add(self, spec: ItemSpec, payload: bytes | None = None, line: int | None = None) -> None:
        """Take the next item: of a URL, or with its payload; `line` is where the body has it.

        Raises:
            TooLarge: the job would hold too many items.
        """
        settings = self._services.settings
        if self.count >= settings.max_items:
            raise TooLarge(f"a job may hold {settings.max_items} items: send the rest as another")
        problem = item_problem(spec, payload, settings)
        if problem is None and self._csv is None:
            problem = self._layout.add(spec)
        if problem is not None:
            self.refuse(in_line(problem, line), spec.id)
            return
        self.count += 1
        self._id_hashes.append(hash(spec.id))
        if self._compared:
            self._digest.update(json.dumps(spec.to_row()).encode())
            self._digest.update(hashlib.sha256(payload or b"").digest())
        if self._problem_count:
            return
        if not self._keep and spec.url is not None:
            self._consider(spec)
        if payload is not None and self._keep:
            check_memory(self._services.load)
            self._uploads.add(spec.id, payload)
        self._pending.append(spec)
        if len(self._pending) >= WRITE_CHUNKS * self._chunk_items:
            self._put_chunks()

    def finish(self, note: ExpiringKey | None = None) -> Job:
        """Make the job: its record with the note, then the doorbell.

        Raises:
            PiqueueError: the submission is refused.
        """
        self.check()
        services, store = self._services, self._services.store
        small = self.count <= INTERACTIVE_ITEMS
        if small:
            self._chunk_items = min(self._chunk_items, -(-self.count // SMALL_JOB_CHUNKS))
        self._put_chunks()
        self._uploads.write()
        lane = self._options.priority or (Lane.INTERACTIVE if small else Lane.BULK)
        shape = Shape(lane, self.count, self._chunk_items, self._options.budget(self.count))
        job = self.new_job()
        if not self._forget:
            # What a draft took in lives as long as the job from now on.
            services.blobs.keep(self.job_id, self._ttl_s)
        if self._parts is not None:
            self._parts.expect(self.job_id, job.ttl_s)
        ring = store.submit(job, shape, note)
        self._forget = False
        services.bell.notify(self.job_id, ring, lane)
        log.info("job_submitted", job_id=self.job_id, items=self.count, lane=lane)
        return store.job(self.job_id)

    def check(self) -> None:
        """Refuse the submission if anything is wrong with it as a whole.

        Raises:
            PiqueueError: it is empty, has unfit items or ids that are the same, or is too much.
        """
        if not self.count:
            raise JobRefused("the job has no items")
        if not self._problem_count:
            self._find_same_ids()
        if self._problem_count:
            raise ItemsRefused(self._problems, self._problem_count)
        check_room(self._services, self._owner, self.count)

    def new_job(self) -> NewJob:
        """Give what the store needs to know of the job besides its items."""
        return NewJob(
            id=self.job_id,
            owner=self._owner,
            model=self._model,
            ttl_s=self._ttl_s,
            name=self._options.name,
            metadata=self._options.metadata,
            parent_job=self._parent_job,
            csv=self._csv or self._layout.shape(),
            webhook_url=self._options.webhook_url,
            use_cache=self._options.use_cache,
            parts=self._parts is not None,
            options=self._options.given,
            traceparent=traceparent(),
        )

    def _consider(self, spec: ItemSpec) -> None:
        if len(self.sample) < SAMPLE_ITEMS:
            self.sample.append(spec)
        elif (place := randrange(self.count)) < SAMPLE_ITEMS:  # noqa: S311
            self.sample[place] = spec

    def _refuse(self, problem: ItemProblem) -> None:
        self._problem_count += 1
        if len(self._problems) < LISTED_PROBLEMS:
            self._problems.append(problem)

    def _find_same_ids(self) -> None:
        if not any(self._same_ids_in(part) for part in range(ID_PARTS)):
            return
        first_index: dict[int, int] = {}
        for index, hashed in enumerate(self._id_hashes):
            first = first_index.setdefault(hashed, index)
            if first != index:
                detail = f"item {first} has the same id: ids must differ"
                self._refuse(ItemProblem(index, None, detail))

    def _same_ids_in(self, part: int) -> bool:
        hashes = sorted(hashed for hashed in self._id_hashes if hashed % ID_PARTS == part)
        return any(one == next_one for one, next_one in pairwise(hashes))

    def _put_chunks(self) -> None:
        size, pending = self._chunk_items, self._pending
        chunks = [pending[start : start + size] for start in range(0, len(pending), size)]
        if self._keep and chunks:
            check_memory(self._services.load)
            self._services.store.put_chunk(self.job_id, self._chunks_put, *chunks)
        self._chunks_put += len(chunks)
        self._pending = []
