"""Reads jobs: records, model cards, items and results."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice, pairwise
from typing import Any, NamedTuple

from redis import Redis

from worker.jobs.errors import JobNotFound
from worker.jobs.items import (
    ImageFacts,
    ItemResult,
    ItemSpec,
    unpack_pictures,
    unpack_results,
    unpack_specs,
)
from worker.jobs.ledger.connection import RedisClient, in_ms
from worker.jobs.ledger.layout import job_key, read_job
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import Job, JobStatus

RESULTS_READ_CHUNKS = 16
# A job with so many chunks at most is read together with its results.
FEW_CHUNKS = 4
# Jobs in one round trip of a list: a page, and the one that says that there is another page.
LIST_READ = 101
_CARD = b"piqueue:card:"


@dataclass(frozen=True)
class StoredResult:
    """One finished item."""

    index: int
    spec: ItemSpec
    result: ItemResult
    attempts: int


class JobWithResults(NamedTuple):
    """A job, its model card, and its results as they are read."""

    job: Job
    model: ModelCard
    results: Iterator[StoredResult]

    @property
    def status(self) -> JobStatus:
        """The status of the job."""
        return self.job.status


class JobReader(RedisClient):
    """Reads jobs in Redis; every method raises LedgerUnavailable if Redis does not answer."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        # By the field "card" of their jobs; there are few, and they never change.
        self._cards: dict[bytes, ModelCard] = {}

    def job(self, job_id: str) -> Job:
        """Read a job; costs the same for any number of items.

        Raises:
            JobNotFound: there is none of this id, or it has expired.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(job_key(job_id, "meta"))
            now, meta = pipe.execute()
        return _unexpired(job_id, meta, now)

    def job_and_results(self, job_id: str) -> JobWithResults:
        """Read a job, its model card and its results, a small job in one round trip.

        Raises:
            JobNotFound: there is none of this id, or it has expired.
        """
        chunks = list(range(FEW_CHUNKS))
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.hgetall(job_key(job_id, "meta"))
            for key in ("res", "in"):
                pipe.hmget(job_key(job_id, key), chunks)
            now, meta, results, specs = pipe.execute()
        job = _unexpired(job_id, meta, now)
        few = ((chunk, specs[chunk], results[chunk]) for chunk in self._finished_chunks(job, 0))
        found = self.results(job) if job.chunk_count > FEW_CHUNKS else _results(job, few)
        return JobWithResults(job, self._card(job_id, meta[b"card"]), found)

    def ended_job(self, event: bytes) -> JobWithResults | None:
        """Read a job of one item from the event of its end, without asking Redis.

        None if nobody was expected to wait for it, or this process does not know its model card.
        """
        head, _, body = event.partition(b"\n")
        job_id, _, *lengths = head.decode().split()
        if not lengths:
            return None
        ends = accumulate(map(int, lengths), initial=0)
        *fields, specs, results = (body[at:end] for at, end in pairwise(ends))
        meta = dict(zip(fields[::2], fields[1::2], strict=True))
        if meta[b"card"] not in self._cards:
            return None
        job = _job(job_id, meta)
        return JobWithResults(job, self._cards[meta[b"card"]], _results(job, [(0, specs, results)]))

    def remember_card(self, model: ModelCard, packed: str) -> None:
        """Remember a model card that a job gets, so that it need not be read."""
        digest = hashlib.sha1(packed.encode(), usedforsecurity=False).hexdigest()
        self._cards.setdefault(digest.encode(), model)

    def model(self, job_id: str) -> ModelCard:
        """Read the model card a job is pinned to."""
        digest = self._redis.hget(job_key(job_id, "meta"), "card")
        return self._card(job_id, digest)

    def _card(self, job_id: str, digest: bytes | None) -> ModelCard:
        if digest is None:
            raise JobNotFound(job_id)
        if digest not in self._cards:
            card = self._redis.get(_CARD + digest)
            if card is None:
                raise JobNotFound(job_id)
            self._cards[digest] = ModelCard.model_validate_json(card)
        return self._cards[digest]

    def jobs(
        self,
        owner: str,
        before: str | None = None,
        status: JobStatus | None = None,
        step: int = LIST_READ,
    ) -> Iterator[Job]:
        """Read an owner's jobs, newest first, `step` at a time; only those older than the job
        `before`, or of a status."""
        key = _list_key(owner, status)
        end = "+" if before is None else f"({before}"
        step = min(step, LIST_READ)
        while True:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.zrange(key, end, "-", desc=True, bylex=True, offset=0, num=step)
                now, ids = pipe.execute()
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.hgetall(job_key(job_id.decode(), "meta"))
                metas = pipe.execute()
            for job_id, meta in zip(ids, metas, strict=True):
                if not meta:  # erased just now, or a Redis that evicts keys has deleted it
                    self._redis.zrem(key, job_id)
                    continue
                try:
                    job = _unexpired(job_id.decode(), meta, now)
                except JobNotFound:
                    continue
                if status in (None, job.status):  # it may have changed just now
                    yield job
            if len(ids) < step:
                return
            end = f"({ids[-1].decode()}"

    def options(self, job_id: str) -> dict[str, Any]:
        """The options of a job or draft, as they were submitted."""
        packed = self._redis.hget(job_key(job_id, "meta"), "options")
        options: dict[str, Any] = json.loads(packed or b"{}")
        return options

    def draft_items(self, job_id: str, step: int, start_index: int = 0) -> Iterator[list[ItemSpec]]:
        """Read the items of a draft from `start_index`, `step` at a time."""
        for start in count(start_index, step):
            rows = self._redis.lrange(job_key(job_id, "draft"), start, start + step - 1)
            if not rows:
                return
            yield [ItemSpec(*json.loads(row)) for row in rows]

    def results(self, job: Job, start_index: int = 0) -> Iterator[StoredResult]:
        """Read the finished items from `start_index`, in index order, a few chunks at a time.

        Raises:
            JobNotFound: the job was erased or expired before all was read.
        """
        for stored in _results(job, self._packed(job, start_index // job.chunk_items)):
            if stored.index >= start_index:
                yield stored

    def finished_specs(self, job: Job) -> Iterator[tuple[int, ItemSpec]]:
        """Read the index and item of all finished items, without their results.

        Raises:
            JobNotFound: the job was erased or expired before all was read.
        """
        for chunk, specs, results in self._packed(job):
            if specs is None:
                raise JobNotFound(job.id)
            if results is not None:
                yield from enumerate(unpack_specs(specs), start=chunk * job.chunk_items)

    def _packed(self, job: Job, first: int = 0) -> Iterator[tuple[int, bytes | None, bytes | None]]:
        """Read finished chunks from `first`, a few at a time: index, items and results."""
        finished = self._finished_chunks(job, first)
        while chunks := list(islice(finished, RESULTS_READ_CHUNKS)):
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.hmget(job_key(job.id, "res"), chunks)
                pipe.hmget(job_key(job.id, "in"), chunks)
                results, specs = pipe.execute()
            yield from zip(chunks, specs, results, strict=True)

    def pictures(
        self, job: Job, indexes: Sequence[int]
    ) -> dict[int, tuple[ImageFacts | None, ItemResult | None]]:
        """Read the facts of the pictures of some finished items, by index, and failed results.

        Gives none if the job was erased.
        """
        chunks = list(dict.fromkeys(index // job.chunk_items for index in indexes))
        packed = self._redis.hmget(job_key(job.id, "res"), chunks) if chunks else []
        found: dict[int, tuple[ImageFacts | None, ItemResult | None]] = {}
        for chunk, one in zip(chunks, packed, strict=True):
            if one is not None:
                found.update(enumerate(unpack_pictures(one), start=chunk * job.chunk_items))
        return {index: found[index] for index in indexes if index in found}

    def specs(self, job: Job, indexes: Iterable[int]) -> dict[int, ItemSpec]:
        """Read some items of a job by index, those that it has, finished or not.

        Raises:
            JobNotFound: the job was erased or has expired.
        """
        wanted = sorted(index for index in set(indexes) if index < job.counts.total)
        chunks = sorted({index // job.chunk_items for index in wanted})
        if not chunks:
            return {}
        packed = self._redis.hmget(job_key(job.id, "in"), chunks)
        if None in packed:
            raise JobNotFound(job.id)
        by_chunk = {chunk: unpack_specs(one) for chunk, one in zip(chunks, packed, strict=True)}
        return {
            index: by_chunk[index // job.chunk_items][index % job.chunk_items] for index in wanted
        }

    def _finished_chunks(self, job: Job, first: int) -> Iterator[int]:
        """The chunks from `first` that have results; of a small job, all chunks."""
        if not job.counts.finished:
            return
        if job.chunk_count <= RESULTS_READ_CHUNKS:
            yield from range(first, job.chunk_count)
            return
        bits = self._redis.get(job_key(job.id, "done")) or b""
        if not bits:
            raise JobNotFound(job.id)
        for chunk in range(first, min(job.chunk_count, 8 * len(bits))):
            if bits[chunk // 8] >> (7 - chunk % 8) & 1:
                yield chunk

    def retry_index(self, retry: Job, parent_index: int) -> int:
        """The first index of a retry whose parent index may be `parent_index` or more; it may be a
        few items early.

        Raises:
            JobNotFound: the retry was erased or has expired.
        """

        def parent_index_of_first(chunk: int) -> int:
            specs = self._redis.hget(job_key(retry.id, "in"), chunk)
            if specs is None:
                raise JobNotFound(retry.id)
            first = unpack_specs(specs)[0].parent_index
            assert first is not None
            return first

        chunks = range(retry.chunk_count)
        later = bisect_right(chunks, parent_index, key=parent_index_of_first)
        return max(0, later - 1) * retry.chunk_items

    def retried(self, retry: Job, parent_indexes: Iterable[int]) -> dict[int, int]:
        """The indexes of items in a retry by their indexes in its parent, of those that it has.

        Raises:
            JobNotFound: the retry was erased or has expired.
        """
        found = {}
        for parent_index in parent_indexes:
            start = self.retry_index(retry, parent_index)
            chunk = range(start, min(start + retry.chunk_items, retry.counts.total))
            for index, spec in self.specs(retry, chunk).items():
                if spec.parent_index == parent_index:
                    found[parent_index] = index
        return found


def _unexpired(job_id: str, meta: dict[bytes, bytes], now: tuple[int, int]) -> Job:
    """Read a job from its record, which is empty if there is none, at a time of Redis.

    Raises:
        JobNotFound: also if it has expired, although it is stored until a worker erases it.
    """
    if not meta or int(meta[b"expires_ms"]) <= in_ms(now):
        raise JobNotFound(job_id)
    return _job(job_id, meta)


def _job(job_id: str, meta: dict[bytes, bytes]) -> Job:
    return read_job(job_id, {field.decode(): value.decode() for field, value in meta.items()})


def _results(
    job: Job, packed: Iterable[tuple[int, bytes | None, bytes | None]]
) -> Iterator[StoredResult]:
    """Unpack the finished items of chunks, given by index with their items and results."""
    for chunk, specs, results in packed:
        if specs is None:
            raise JobNotFound(job.id)
        if results is None:
            continue
        attempts, unpacked = unpack_results(results)
        pairs = zip(unpack_specs(specs), unpacked, strict=True)
        for index, (spec, result) in enumerate(pairs, start=chunk * job.chunk_items):
            yield StoredResult(index, spec, result, attempts)


def _list_key(owner: str, status: JobStatus | None) -> str:
    return f"piqueue:jobs:{owner}" if status is None else f"piqueue:jobs:{owner}:{status}"
