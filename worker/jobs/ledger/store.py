"""The job store: jobs, items and results in Redis, changed only by atomic steps."""

import json
import secrets
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

from worker.jobs.errors import (
    JobNotDraft,
    JobNotFound,
    LedgerUnavailable,
    OverQuota,
    QueueFull,
    TooLarge,
)
from worker.jobs.host_statistics import count_hosts
from worker.jobs.items import ItemResult, ItemSpec, pack_results, pack_specs
from worker.jobs.ledger.claims import Claim, read_claim
from worker.jobs.ledger.functions import Library
from worker.jobs.ledger.layout import (
    NO_LIMITS,
    ExpiringKey,
    NewJob,
    Shape,
    SubmissionLimits,
    fields_of,
    job_key,
)
from worker.jobs.ledger.reader import JobReader
from worker.jobs.ledger.workers import WORKER_SILENT_S, Workers
from worker.jobs.record import Lane
from worker.jobs.wake_up import wake_up

EVENTS_CHANNEL = "piqueue:events"
# Stored items of a job that is not submitted expire after this long.
UNSUBMITTED_TTL_S = 3600
# When to submit again if too many items are waiting.
RETRY_FULL_S = 30

# The workers' number is read again after this time.
SLOTS_READ_S = WORKER_SILENT_S / 3
# Wake-ups for workers that are about to start.
MIN_SLOTS = 4
# Due entries in one step of recovery, so that no step blocks Redis for long.
RECOVERED_AT_ONCE = 100

_LUA = f"local WAKE_UP = [[{wake_up()}]]\n" + "".join(
    Path(__file__).with_name(f"{name}.lua").read_text() for name in ("ready", "ledger")
)


class IdState(StrEnum):
    """Whether a draft may take an item of this id, has it, or has another item of this id."""

    FREE = "free"
    ADDED = "added"
    TAKEN = "taken"


class StoredThumbnails(NamedTuple):
    """The thumbnails of a chunk: their size, and the bytes of those that the commit stores."""

    byte_count: int
    for_ledger: bytes = b""


NO_THUMBNAILS = StoredThumbnails(0)


class DraftsOfOwner(NamedTuple):
    """How many drafts an owner has, and their items."""

    draft_count: int
    item_count: int


class JobStore(JobReader):
    """Jobs in Redis; every method raises LedgerUnavailable if Redis does not answer or is full."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._workers = Workers(redis)
        self._library = Library(redis, "ledger", _LUA)
        self._slots = (0.0, 0)

    def _step(self, step: str, *args: str | bytes | float) -> Any:
        return self._library.call(step, args)

    # Submitting: chunks first, the record last.

    def put_chunk(self, job_id: str, chunk_index: int, *chunks: Sequence[ItemSpec]) -> None:
        """Store the items of consecutive chunks, starting at `chunk_index`, of a new job."""
        key = job_key(job_id, "in")
        packed = {index: pack_specs(specs) for index, specs in enumerate(chunks, chunk_index)}
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, mapping=packed)
            pipe.expire(key, UNSUBMITTED_TTL_S)
            pipe.execute()

    def submit(
        self,
        job: NewJob,
        shape: Shape,
        extra: ExpiringKey | None = None,
        chunks: Mapping[int, Sequence[ItemSpec]] | None = None,
        uploads: Mapping[str, bytes] | None = None,
        limits: SubmissionLimits = NO_LIMITS,
        upload_bytes: int = 0,
    ) -> None:
        """Make the stored chunks a job, write `extra`, and wake workers.

        `chunks` by index and `uploads` by item are those that are not stored yet; they are few.
        `upload_bytes` is the size of all uploads that no draft has counted.

        Raises:
            QueueFull: more items would be unfinished than `limits` allow.
            OverQuota: the owner would store more than `limits` allow.
            LedgerUnavailable: also if Redis was killed and lost some of the chunks.
        """
        chunk_count = -(-shape.total // shape.chunk_items)
        fields = {
            **fields_of(job),
            "lane": shape.lane,
            "total": shape.total,
            "chunk_items": shape.chunk_items,
            "chunk_count": chunk_count,
            "uploads": len(uploads or ()),
        }
        if shape.max_failures is not None:
            fields["max_failures"] = shape.max_failures
        card = job.model.model_dump_json()
        self.remember_card(job.model, card)
        extra_key = (extra.key, extra.value, extra.ttl_s) if extra else ("", "", "")
        packed = {index: pack_specs(specs) for index, specs in (chunks or {}).items()}
        hashes = [_flat(one) for one in (packed, fields, uploads or {})]
        parts = [part for one in hashes for part in (len(one), *one)]
        size = (limits.items_of_owner, limits.items_of_all, job.owner, shape.total)
        stored = (limits.upload_bytes, upload_bytes)
        outcome = self._step(
            "submit", job.id, self.slots(), card, chunk_count, *extra_key, *size, *stored, *parts
        )
        if outcome == -1:
            raise QueueFull("too many items are waiting: try again later", RETRY_FULL_S)
        if outcome == -2:
            raise OverQuota("you store too many pictures: try again later", RETRY_FULL_S)
        if outcome is None:
            raise LedgerUnavailable("Redis lost some of the items: submit them again")

    # Drafts: items are added in several requests, then submitted together.

    def open_draft(self, job: NewJob) -> None:
        """Create a draft."""
        fields = {**fields_of(job), "lane": Lane.BULK, "chunk_items": 1}
        self._step("open_draft", job.id, job.model.model_dump_json(), *_flat(fields))

    def reserve(
        self, job_id: str, items: Sequence[tuple[str, bytes, bytes]]
    ) -> list[tuple[str, IdState]]:
        """Reserve the ids of items; returns the id and state of each.

        The items are given as ids, fingerprints and names. An empty id becomes the next free
        number, counted from the items that the draft has, or that which its name has got already;
        an empty name is none. No name is an id.

        Raises:
            JobNotDraft: the job is submitted, or is being submitted.
        """
        answer = self._step("reserve", job_id, *(part for item in items for part in item))
        if answer is None:
            raise JobNotDraft(f"{job_id} is submitted or deleted: send more items as a new job")
        return [
            (item_id.decode(), IdState(state.decode()))
            for item_id, state in zip(answer[::2], answer[1::2], strict=True)
        ]

    def add(
        self,
        job_id: str,
        items: Sequence[tuple[bytes, ItemSpec]],
        max_items: int,
        upload_bytes: int = 0,
    ) -> list[bool]:
        """Add items whose ids are reserved, given with fingerprints; returns which are new.

        `upload_bytes` is the size of their uploads.

        Raises:
            JobNotDraft: the job is submitted, or is being submitted.
            TooLarge: the draft would hold more than `max_items`; none is added.
        """
        rows = ((spec.id, fingerprint, json.dumps(spec.to_row())) for fingerprint, spec in items)
        step = ("add", job_id, max_items, upload_bytes)
        answer = self._step(*step, *(part for row in rows for part in row))
        if answer == -1:
            raise JobNotDraft(f"{job_id} is submitted or deleted: send more items as a new job")
        if answer == -2:
            raise TooLarge(f"a job may hold {max_items} items: submit the rest as another job")
        return [bool(is_new) for is_new in answer]

    def touch_draft(self, job_id: str) -> None:
        """Note that a request uses a draft."""
        self._step("touch", job_id)

    def drafts_of(self, owner: str) -> DraftsOfOwner:
        """Count the drafts of an owner, and their items."""
        return DraftsOfOwner(*self._step("drafts_of", owner))

    def erase_idle_draft(self, idle_s: float) -> str | None:
        """Erase the draft that no request has used for the longest time; gives its id.

        None, without a change, if each was used within `idle_s`.
        """
        erased: bytes | None = self._step("erase_idle_draft", int(idle_s * 1000))
        return None if erased is None else erased.decode()

    def close_draft(self, job_id: str) -> None:
        """Accept no more items.

        Raises:
            JobNotDraft: it is submitted or cancelled already.
        """
        if not self._step("close", job_id):
            raise JobNotDraft(f"{job_id} is not a draft: read its results")

    # Working: claim, renew, checkpoint, commit.

    def claim_next(
        self,
        lease_s: float,
        bulk_share: float,
        warm: Collection[str] = (),
        others: Collection[str] = (),
        most: int = 1,
    ) -> list[Claim]:
        """Lease the chunk whose turn it is; empty if no chunk waits.

        `bulk_share` is the share of the bulk lane while both lanes wait. Among jobs with equal
        right, those with a model in `warm` go first; jobs with a model in `others` are left to
        other workers. If an owner has more jobs of one upload waiting than the workers have slots,
        up to `most` of them with the same model are leased together.
        """
        models = [json.dumps(dict.fromkeys(keys, True)) for keys in (warm, others)]
        request, lease_ms = secrets.token_hex(8), int(lease_s * 1000)
        slots = self.slots()
        answer = self._step("claim_next", lease_ms, bulk_share, *models, request, most, slots)
        return [read_claim(*described) for described in answer]

    def renew(self, claim: Claim, lease_s: float) -> bool:
        """Renew the lease for `lease_s`; False if another worker has it."""
        lease_ms = int(lease_s * 1000)
        return bool(self._step("renew", claim.job_id, claim.chunk_index, claim.attempt, lease_ms))

    def release(self, claim: Claim, delay_s: float = 0) -> None:
        """Return a chunk that cannot be scored now, after `delay_s`; without one, wake a worker."""
        delay_ms, slots = int(delay_s * 1000), self.slots()
        step = ("release", claim.job_id, claim.chunk_index, claim.attempt, delay_ms, slots)
        self._step(*step)

    def checkpoint(self, claim: Claim, position: int | None) -> None:
        """Record the item that is about to be scored, in case it kills the worker; None clears."""
        at = "" if position is None else position
        self._step("checkpoint", claim.job_id, claim.chunk_index, claim.attempt, at)

    def commit(self, claim: Claim, results: Sequence[ItemResult]) -> bool:
        """Store a chunk's results; False, without a change, if it has some or its job is over."""
        (accepted,), _ = self.commit_all([(claim, results)])
        return accepted

    def commit_all(
        self,
        scored: Sequence[tuple[Claim, Sequence[ItemResult]]],
        thumbnails: Sequence[StoredThumbnails] | None = None,
        feature_bytes: Sequence[int] | None = None,
    ) -> tuple[list[bool], bool]:
        """Do what `commit` does for several chunks, and delete the uploads that have scores.

        `feature_bytes` are the sizes of the features that are kept of each.

        Returns what `commit` does for each, and whether any chunk waits.
        """
        stored = thumbnails or [NO_THUMBNAILS] * len(scored)
        kept = feature_bytes or [0] * len(scored)
        commits = [
            _commit_args(claim, results, of_chunk, kept_bytes)
            for (claim, results), of_chunk, kept_bytes in zip(scored, stored, kept, strict=True)
        ]
        args = [part for commit in commits for part in (len(commit), *commit)]
        waits, *accepted = self._step("commit_all", *args)
        return [bool(one) for one in accepted], bool(waits)

    # Recovery.

    def recover(self) -> list[str]:
        """Do what is due, that of leases, deferred chunks and expired jobs, and wake workers.

        Returns the entries that were due, at most RECOVERED_AT_ONCE.
        """
        return [e.decode() for e in self._step("recover", RECOVERED_AT_ONCE, self.slots())]

    def slots(self) -> int:
        """How many chunks all live workers score at a time, read every few seconds."""
        read_at, slots = self._slots
        if time.monotonic() - read_at > SLOTS_READ_S or not slots:
            slots = max(MIN_SLOTS, sum(self._workers.live().values()))
            self._slots = (time.monotonic(), slots)
        return slots

    # Ending.

    def cancel(self, job_id: str) -> None:
        """Stop a job and keep its results. Raises JobNotFound."""
        if not self._step("cancel", job_id):
            raise JobNotFound(job_id)

    def erase(self, job_id: str) -> None:
        """Remove a job with its items and results; after a lost answer it is repeated."""
        self._step("erase", job_id)

    def abandon(self, job_id: str) -> bool:
        """Remove the stored items of a job; False, without a change, if it was submitted."""
        return bool(self._step("abandon", job_id))


def _flat(fields: Mapping[Any, Any]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]


def _commit_args(
    claim: Claim,
    results: Sequence[ItemResult],
    thumbnails: StoredThumbnails,
    feature_bytes: int,
) -> list[Any]:
    """Make the arguments of `commit` in ledger.lua."""
    if len(results) != len(claim.specs):
        raise ValueError(f"{len(results)} results for {len(claim.specs)} items")
    pairs = list(zip(claim.specs, results, strict=True))
    codes = Counter(result.rejection.code for result in results if result.rejection)
    failed = codes.total()
    scored = [(spec.id, result) for spec, result in pairs if result.scores and spec.url is None]
    return [
        claim.job_id,
        claim.chunk_index,
        claim.attempt,
        pack_results(claim.tries, results),
        thumbnails.byte_count + feature_bytes,
        thumbnails.for_ledger,
        len(results) - failed,
        failed,
        sum(result.cached for result in results),
        count_hosts(pairs),
        len(codes),
        *_flat(codes),
        sum(result.image.byte_count for _, result in scored if result.image),
        *(item_id for item_id, _ in scored),
    ]
