"""The job store: jobs, items and results in Redis, changed only by atomic scripts."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from redis import Redis

from worker.jobs.errors import JobNotDraft, JobNotFound, LedgerUnavailable, TooLarge
from worker.jobs.host_statistics import count_hosts
from worker.jobs.items import ItemResult, ItemSpec, pack_results, pack_specs, unpack_specs
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.layout import JOB_KEYS, ExpiringKey, NewJob, Shape, fields_of, job_key
from worker.jobs.ledger.load import OPEN
from worker.jobs.ledger.reader import JobReader
from worker.jobs.ledger.workers import WORKER_SILENT_S, Workers
from worker.jobs.record import Lane, ModelRef

EVENTS_CHANNEL = "piqueue:events"
# Stored items of a job that is not submitted expire after this long.
UNSUBMITTED_TTL_S = 3600

# A full Redis accepts no new jobs, but those it has can be scored, cancelled and erased.
_STEPS = {
    "": ("open_draft", "reserve", "add", "close", "submit"),
    "allow-oom": (
        *("claim", "renew", "defer", "checkpoint", "commit"),
        *("recover", "cancel", "erase", "abandon"),
    ),
}
_LEDGER = Path(__file__).with_name("ledger.lua").read_text()


class IdState(StrEnum):
    """Whether a draft may take an item of this id, has it, or has another item of this id."""

    FREE = "free"
    ADDED = "added"
    TAKEN = "taken"


class JobStore(JobReader):
    """Jobs in Redis; every method raises LedgerUnavailable if Redis does not answer or is full."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._workers = Workers(redis)
        self._scripts = {
            step: redis.register_script(f"#!lua flags={flags}\n{_LEDGER}\nreturn {step}()")
            for flags, steps in _STEPS.items()
            for step in steps
        }
        self._window = (0.0, 0)

    def _step(self, step: str, job_id: str, *args: str | bytes | float) -> Any:
        keys = [job_key(job_id, key) for key in JOB_KEYS]
        return self._scripts[step](keys=keys, args=[job_id, *args])

    # Submitting: chunks first, the record last.

    def put_chunk(self, job_id: str, chunk_index: int, *chunks: Sequence[ItemSpec]) -> None:
        """Store the items of consecutive chunks, starting at `chunk_index`, of a new job."""
        key = job_key(job_id, "in")
        packed = {index: pack_specs(specs) for index, specs in enumerate(chunks, chunk_index)}
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, mapping=packed)
            pipe.expire(key, UNSUBMITTED_TTL_S)
            pipe.execute()

    def submit(self, job: NewJob, shape: Shape, extra: ExpiringKey | None = None) -> list[int]:
        """Make the stored chunks a job, and write `extra`; returns the chunks to notify of.

        Raises:
            LedgerUnavailable: also if Redis was killed and lost some of the chunks.
        """
        chunk_count = -(-shape.total // shape.chunk_items)
        fields = {
            **fields_of(job),
            "lane": shape.lane,
            "total": shape.total,
            "chunk_items": shape.chunk_items,
            "chunk_count": chunk_count,
        }
        if shape.max_failures is not None:
            fields["max_failures"] = shape.max_failures
        card = job.model.model_dump_json()
        extra_key = (extra.key, extra.value, extra.ttl_s) if extra else ("", "", "")
        chunks = self._step(
            "submit", job.id, self.window(), card, chunk_count, *extra_key, *_flat(fields)
        )
        if chunks is None:
            raise LedgerUnavailable("Redis lost some of the items: submit them again")
        return [int(chunk) for chunk in chunks]

    # Drafts: items are added in several requests, then submitted together.

    def open_draft(self, job: NewJob) -> None:
        """Create a draft."""
        fields = {**fields_of(job), "lane": Lane.BULK, "chunk_items": 1}
        self._step("open_draft", job.id, job.model.model_dump_json(), *_flat(fields))

    def reserve(self, job_id: str, items: Sequence[tuple[str, bytes]]) -> list[tuple[str, IdState]]:
        """Reserve the ids of items, given with fingerprints; returns the id and state of each.

        An empty id becomes the next free number, counted from the items that the draft has.

        Raises:
            JobNotDraft: the job is submitted, or is being submitted.
        """
        answer = self._step("reserve", job_id, *(part for item in items for part in item))
        if answer is None:
            raise JobNotDraft(f"{job_id} is already submitted and accepts no more items")
        return [
            (item_id.decode(), IdState(state.decode()))
            for item_id, state in zip(answer[::2], answer[1::2], strict=True)
        ]

    def add(
        self, job_id: str, items: Sequence[tuple[bytes, ItemSpec]], max_items: int
    ) -> list[bool]:
        """Add items whose ids are reserved, given with fingerprints; returns which are new.

        Raises:
            JobNotDraft: the job is submitted, or is being submitted.
            TooLarge: the draft would hold more than `max_items`; none is added.
        """
        rows = ((spec.id, fingerprint, json.dumps(spec.to_row())) for fingerprint, spec in items)
        answer = self._step("add", job_id, max_items, *(part for row in rows for part in row))
        if answer == -1:
            raise JobNotDraft(f"{job_id} is already submitted and accepts no more items")
        if answer == -2:
            raise TooLarge(f"a job may hold {max_items} items: submit the rest as another job")
        return [bool(is_new) for is_new in answer]

    def close_draft(self, job_id: str) -> None:
        """Accept no more items.

        Raises:
            JobNotDraft: it is already submitted.
        """
        if not self._step("close", job_id):
            raise JobNotDraft(f"{job_id} is already submitted")

    # Working: claim, renew, checkpoint, commit.

    def claim(self, job_id: str, chunk_index: int, lease_s: float) -> Claim | None:
        """Lease a chunk; None if the job is over, or the chunk is done or leased."""
        answer = self._step("claim", job_id, chunk_index, int(lease_s * 1000))
        if answer[0] != b"claimed":
            return None
        attempt, lane, chunk_items, use_cache, specs = answer[1:6]
        deaths, waited_ms, deferrals, parts, model, traceparent = answer[6:]
        return Claim(
            job_id,
            chunk_index,
            int(attempt),
            ModelRef(*(part.decode() for part in model)),
            Lane(lane.decode()),
            chunk_index * int(chunk_items),
            bool(use_cache),
            tuple(unpack_specs(specs)),
            tuple(int(position) for position in deaths.split()),
            None if waited_ms < 0 else waited_ms / 1000,
            int(deferrals),
            bool(parts),
            traceparent.decode() or None,
        )

    def renew(self, claim: Claim, lease_s: float) -> bool:
        """Renew the lease for `lease_s`; False if another worker has it."""
        lease_ms = int(lease_s * 1000)
        return bool(self._step("renew", claim.job_id, claim.chunk_index, claim.attempt, lease_ms))

    def defer(self, claim: Claim, delay_s: float) -> None:
        """Release a chunk that cannot be scored now; it is notified again after `delay_s`."""
        delay_ms = int(delay_s * 1000)
        self._step("defer", claim.job_id, claim.chunk_index, claim.attempt, delay_ms)

    def checkpoint(self, claim: Claim, position: int | None) -> None:
        """Record the item that is about to be scored, in case it kills the worker; None clears."""
        at = "" if position is None else position
        self._step("checkpoint", claim.job_id, claim.chunk_index, claim.attempt, at)

    def commit(self, claim: Claim, results: Sequence[ItemResult]) -> list[int] | None:
        """Store a chunk's results; returns the chunks to notify of next.

        None, without a change, if the chunk already has results or its job is over.
        """
        if len(results) != len(claim.specs):
            raise ValueError(f"{len(results)} results for {len(claim.specs)} items")
        codes = Counter(result.rejection.code for result in results if result.rejection)
        packed = pack_results(claim.tries, results)
        failed = codes.total()
        failures = [part for pair in codes.items() for part in pair]
        answer = self._step(
            "commit",
            claim.job_id,
            claim.chunk_index,
            packed,
            self.window(),
            len(results) - failed,
            failed,
            sum(result.cached for result in results),
            count_hosts(zip(claim.specs, results, strict=True)),
            *failures,
        )
        accepted, *chunks = answer
        return [int(chunk) for chunk in chunks] if accepted else None

    # Recovery.

    def open_jobs(self) -> list[str]:
        """List the jobs that have unfinished items."""
        return [job_id.decode() for job_id in self._redis.hkeys(OPEN)]

    def recover(self, job_id: str, lost_after_s: float) -> tuple[Lane, list[int]]:
        """Free expired leases and fill the window; returns the chunks to notify of.

        A message that no worker received within `lost_after_s` counts as lost.
        """
        lost_after_ms = int(lost_after_s * 1000)
        lane, *chunks = self._step("recover", job_id, self.window(), lost_after_ms)
        return Lane(lane.decode()), [int(chunk) for chunk in chunks]

    def messages(self) -> int:
        """Count the messages on the queues."""
        return sum(int(self._redis.llen(f"piqueue:{lane}")) for lane in Lane)

    def window(self) -> int:
        """How many chunks of a job may be notified or leased at once: twice the worker slots."""
        read_at, window = self._window
        if time.monotonic() - read_at > WORKER_SILENT_S / 3 or not window:
            window = max(4, 2 * sum(self._workers.live().values()))
            self._window = (time.monotonic(), window)
        return window

    # Ending.

    def cancel(self, job_id: str) -> None:
        """Stop a job and keep its results. Raises JobNotFound."""
        if not self._step("cancel", job_id):
            raise JobNotFound(job_id)

    def erase(self, job_id: str) -> None:
        """Remove a job with its items and results. Raises JobNotFound."""
        if not self._step("erase", job_id):
            raise JobNotFound(job_id)

    def abandon(self, job_id: str) -> bool:
        """Remove the stored items of a job; False, without a change, if it was submitted."""
        return bool(self._step("abandon", job_id))


def _flat(fields: Mapping[str, Any]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]
