"""The job store: the ledger of jobs, items and results in Redis, changed only by atomic steps."""

import json
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import count, islice
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from worker.jobs.errors import (
    JobNotDraft,
    JobNotFound,
    LedgerFull,
    LedgerUnavailable,
    TooLarge,
)
from worker.jobs.hosts import count_hosts, read_hosts
from worker.jobs.models import ModelCard
from worker.jobs.record import (
    Counts,
    CsvShape,
    ItemResult,
    ItemSpec,
    Job,
    JobStatus,
    Lane,
    ModelRef,
    pack_results,
    pack_specs,
    unpack_results,
    unpack_specs,
)

EVENTS_CHANNEL = "piqueue:events"
# A worker that has not been heard of for this long counts as gone.
WORKER_SILENT_S = 15
# A job that was stored but not submitted within this time was abandoned by its client.
UNSUBMITTED_TTL_S = 3600
RESULTS_READ_CHUNKS = 16
LIST_READ = 100
OPEN_JOBS_READ = 1000
MAX_BLIND_ATTEMPTS = 6
DEATHS_OF_A_KILLER = 2
MEMORY_READ_S = 1

_JOB_KEYS = (
    *("meta", "in", "res", "done", "lease", "rung", "attempts", "suspects", "model"),
    *("draft", "ids", "webhook", "webhook_log"),
)
_OPEN = "piqueue:open"
_BACKLOG = "piqueue:backlog"
_WORKERS = "piqueue:workers"
_SWEEPER = "piqueue:sweeper"
_CARD = b"piqueue:card:"
# A full Redis takes no new work; what it has is scored, cancelled and erased all the same.
_STEPS = {
    "": ("open_draft", "add", "close", "submit"),
    "allow-oom": (
        "claim",
        "renew",
        "put_off",
        "note",
        "commit",
        "recover",
        "cancel",
        "erase",
        "abandon",
    ),
}
_LEDGER = Path(__file__).with_name("ledger.lua").read_text()


@dataclass(frozen=True)
class NewJob:
    """What the caller decides of a job; the store adds the rest."""

    id: str
    owner: str
    model: ModelCard
    ttl_s: int
    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    parent_job: str | None = None
    csv: CsvShape | None = None
    use_cache: bool = False
    webhook_url: str | None = field(default=None, repr=False)
    # Whether the results are written to S3 besides.
    parts: bool = False
    # What the client said of it, as it said it; `JobStore.options` gives it back.
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # The W3C trace context of its submission; None where that was not traced.
    traceparent: str | None = None


@dataclass(frozen=True)
class Shape:
    """What is known of a job once all its items are stored."""

    lane: Lane
    total: int
    chunk_items: int
    max_failures: int | None = None


@dataclass(frozen=True)
class Note:
    """What is written in the step that makes a job, for `ttl_s`."""

    key: str
    value: str
    ttl_s: int


@dataclass(frozen=True)
class Claim:
    """A chunk a worker holds: its `attempt` (from 1) proves the lease is its own."""

    job_id: str
    chunk_index: int
    attempt: int
    model: ModelRef
    lane: Lane
    first_index: int
    use_cache: bool
    specs: tuple[ItemSpec, ...]
    # The position in the chunk at which each earlier attempt died that had noted one.
    deaths: tuple[int, ...]
    # Since it was last rung for; None where that is not known.
    waited_s: float | None
    # Attempts that were given back, for a reason that was none of the items' fault.
    put_off: int = 0
    parts: bool = False
    traceparent: str | None = None

    @property
    def tries(self) -> int:
        """Attempts at the items themselves, this one included."""
        return self.attempt - self.put_off

    @property
    def first_try(self) -> bool:
        """Whether no attempt was lost on this chunk before."""
        return self.tries == 1

    @property
    def hopeless(self) -> bool:
        """Whether too many attempts ended without naming the item they died at."""
        return self.tries - len(self.deaths) > MAX_BLIND_ATTEMPTS

    @property
    def lost(self) -> frozenset[int]:
        """Positions given up: one death may come from outside, two at one item come from it."""
        deaths = Counter(self.deaths)
        return frozenset(at for at, count in deaths.items() if count >= DEATHS_OF_A_KILLER)


@dataclass(frozen=True)
class OpenItems:
    """The unfinished items of all jobs, and how long ago the first that waits was submitted."""

    waiting: int
    running: int
    oldest_waiting_s: float
    job_count: int


@dataclass(frozen=True)
class StoredResult:
    """One finished item, as read back."""

    index: int
    spec: ItemSpec
    result: ItemResult
    attempts: int


def connect(url: str, *, timeout_s: float = 10, retries: int = 3) -> Redis:
    """Give a client; a lost connection is tried again `retries` times, for about a second each."""
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=5,
        health_check_interval=15,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), retries),
    )


@contextmanager
def ledger_errors() -> Iterator[None]:
    """Turn Redis being away into LedgerUnavailable, and it being full into LedgerFull."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise LedgerUnavailable(f"Redis does not answer ({type(error).__name__})") from error
    except OutOfMemoryError as error:
        raise LedgerFull("Redis takes no writes: its memory is full") from error
    except ReadOnlyError as error:
        raise LedgerFull("Redis takes no writes: it is a replica of another") from error
    except ResponseError as error:
        if "MISCONF " not in str(error):
            raise
        raise LedgerFull("Redis takes no writes: it cannot save them, its disk is full") from error


class JobStore:
    """Jobs in Redis; every method raises LedgerUnavailable when Redis is away or full."""

    def __init__(self, redis: Redis) -> None:
        # redis-py annotates answers as either awaited or not, so the client is untyped here.
        self._redis: Any = redis
        self._scripts = {
            step: redis.register_script(f"#!lua flags={flags}\n{_LEDGER}\nreturn {step}()")
            for flags, steps in _STEPS.items()
            for step in steps
        }
        self._window = (0.0, 0)
        self._memory = (0.0, 0.0)
        # By what the "model" key of their jobs holds; there are few, and none ever changes.
        self._cards: dict[bytes, ModelCard] = {}

    def _keys(self, job_id: str) -> list[str]:
        return [f"piqueue:{{{job_id}}}:{key}" for key in _JOB_KEYS]

    def _key(self, job_id: str, key: str) -> str:
        return f"piqueue:{{{job_id}}}:{key}"

    def _step(self, step: str, job_id: str, *args: str | bytes | float) -> Any:
        with ledger_errors():
            return self._scripts[step](keys=self._keys(job_id), args=[job_id, *args])

    def backlog(self, owner: str = "*") -> int:
        """Count the items without a result, of one owner's jobs or of all."""
        return self.backlogs(owner)[0]

    def backlogs(self, *owners: str) -> list[int]:
        """Count them for several owners at once, "*" being all."""
        with ledger_errors():
            return [int(count or 0) for count in self._redis.hmget(_BACKLOG, owners)]

    def rate_per_s(self) -> float:
        """Give the items finished a second of late, all jobs together."""
        with ledger_errors():
            seconds, _ = self._redis.time()
            buckets = [f"piqueue:rate:{seconds // 10 - ago}" for ago in range(1, 7)]
            return sum(int(count or 0) for count in self._redis.mget(buckets)) / 60

    def memory_share(self) -> float:
        """Give how full the memory of Redis was a second ago, from 0 to 1; 0 without a limit."""
        read_at, share = self._memory
        if time.monotonic() - read_at > MEMORY_READ_S or not read_at:
            with ledger_errors():
                memory = self._redis.info("memory")
            share = memory["used_memory"] / memory["maxmemory"] if memory["maxmemory"] else 0.0
            self._memory = (time.monotonic(), share)
        return share

    # Submitting: chunks first, the record last.

    def put_chunk(self, job_id: str, chunk_index: int, *chunks: Sequence[ItemSpec]) -> None:
        """Store the items of consecutive chunks, from `chunk_index` on, of an unsubmitted job."""
        key = self._key(job_id, "in")
        packed = {index: pack_specs(specs) for index, specs in enumerate(chunks, chunk_index)}
        with ledger_errors(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, mapping=packed)
            pipe.expire(key, UNSUBMITTED_TTL_S)
            pipe.execute()

    def submit(self, job: NewJob, shape: Shape, note: Note | None = None) -> list[int]:
        """Make the stored chunks a job, and write the note; gives the chunk indexes to ring for.

        Raises:
            LedgerUnavailable: also where Redis was killed and forgot some of the chunks.
        """
        chunk_count = -(-shape.total // shape.chunk_items)
        fields = {
            **_header(job),
            "lane": shape.lane,
            "total": shape.total,
            "chunk_items": shape.chunk_items,
            "chunk_count": chunk_count,
        }
        if shape.max_failures is not None:
            fields["max_failures"] = shape.max_failures
        card = job.model.model_dump_json()
        noted = (note.key, note.value, note.ttl_s) if note else ("", "", "")
        ring = self._step(
            "submit", job.id, self.window(), card, chunk_count, *noted, *_flat(fields)
        )
        if ring is None:
            raise LedgerUnavailable("Redis lost some of the items: submit them again")
        return [int(chunk) for chunk in ring]

    # Drafts: items are added as often as needed, then submitted as a whole.

    def open_draft(self, job: NewJob) -> None:
        """Begin a draft."""
        fields = {**_header(job), "lane": Lane.BULK, "chunk_items": 1}
        self._step("open_draft", job.id, job.model.model_dump_json(), *_flat(fields))

    def add(self, job_id: str, specs: Sequence[ItemSpec], max_items: int) -> int:
        """Add items to a draft, but for those whose id it has already; gives its item count.

        Raises:
            JobNotDraft: the job is submitted, or about to be.
            TooLarge: the draft would hold more than `max_items`.
        """
        forms = [part for spec in specs for part in (spec.id, json.dumps(spec.to_row()))]
        count = int(self._step("add", job_id, max_items, *forms))
        if count == -1:
            raise JobNotDraft(f"{job_id} is not a draft any more, so it takes no more items")
        if count == -2:
            raise TooLarge(f"a job may hold {max_items} items")
        return count

    def close_draft(self, job_id: str) -> None:
        """Take no more items.

        Raises:
            JobNotDraft: it is submitted already.
        """
        if not self._step("close", job_id):
            raise JobNotDraft(f"{job_id} is not a draft: it was submitted already")

    def options(self, job_id: str) -> dict[str, Any]:
        """Give the options a job was submitted with, or its draft begun."""
        with ledger_errors():
            packed = self._redis.hget(self._key(job_id, "meta"), "options")
        options: dict[str, Any] = json.loads(packed or b"{}")
        return options

    def draft_items(self, job_id: str, step: int, start_index: int = 0) -> Iterator[list[ItemSpec]]:
        """Read the items of a draft from `start_index` on, `step` at a time."""
        for start in count(start_index, step):
            with ledger_errors():
                rows = self._redis.lrange(self._key(job_id, "draft"), start, start + step - 1)
            if not rows:
                return
            yield [ItemSpec(*json.loads(row)) for row in rows]

    def jobs(self, owner: str, before: str | None = None) -> Iterator[Job]:
        """Read an owner's jobs, newest first, or only those older than the job `before`."""
        end = "+" if before is None else f"({before}"
        while True:
            with ledger_errors():
                ids = self._redis.zrange(
                    _list_key(owner), end, "-", desc=True, bylex=True, offset=0, num=LIST_READ
                )
            for job_id in (raw.decode() for raw in ids):
                try:
                    yield self.job(job_id)
                except JobNotFound:
                    with ledger_errors():
                        self._redis.zrem(_list_key(owner), job_id)
            if len(ids) < LIST_READ:
                return
            end = f"({ids[-1].decode()}"

    # Working: claim, renew, note, commit.

    def claim(self, job_id: str, chunk_index: int, lease_s: float) -> Claim | None:
        """Take the lease of a chunk; None when the job is over or the chunk done or held."""
        answer = self._step("claim", job_id, chunk_index, int(lease_s * 1000))
        if answer[0] != b"claimed":
            return None
        attempt, lane, chunk_items, use_cache, specs = answer[1:6]
        deaths, waited_ms, put_off, parts, model, traceparent = answer[6:]
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
            int(put_off),
            bool(parts),
            traceparent.decode() or None,
        )

    def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold the chunk for another `lease_s`; False when the lease is not the caller's."""
        lease_ms = int(lease_s * 1000)
        return bool(self._step("renew", claim.job_id, claim.chunk_index, claim.attempt, lease_ms))

    def put_off(self, claim: Claim, delay_s: float) -> None:
        """Give a chunk back that cannot be worked on now; it is rung for after `delay_s`."""
        delay_ms = int(delay_s * 1000)
        self._step("put_off", claim.job_id, claim.chunk_index, claim.attempt, delay_ms)

    def note(self, claim: Claim, position: int | None) -> None:
        """Write down the item that is about to be scored, in case it kills us; None clears."""
        self._step(
            "note",
            claim.job_id,
            claim.chunk_index,
            claim.attempt,
            "" if position is None else position,
        )

    def commit(self, claim: Claim, results: Sequence[ItemResult]) -> list[int] | None:
        """Store a chunk's results; gives the chunk indexes to ring for next.

        None, and no change, where the chunk has results already or its job is over.
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
        accepted, *ring = answer
        return [int(chunk) for chunk in ring] if accepted else None

    # Keeping things moving.

    def open_jobs(self) -> list[str]:
        """List the jobs that have unfinished items."""
        with ledger_errors():
            return [job_id.decode() for job_id in self._redis.hkeys(_OPEN)]

    def open_items(self) -> OpenItems:
        """Count the unfinished items; those that run are looked for in the oldest jobs alone."""
        with ledger_errors():
            unfinished = {
                job_id.decode(): int(count.split()[0])
                for job_id, count in self._redis.hgetall(_OPEN).items()
            }
            oldest = nsmallest(OPEN_JOBS_READ, unfinished)
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.time()
                for job_id in oldest:
                    meta = self._key(job_id, "meta")
                    pipe.hmget(meta, "total", "chunk_items", "submitted_ms")
                    pipe.zrange(self._key(job_id, "lease"), 0, -1)
                (seconds, microseconds), *read = pipe.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        all_running, oldest_ms = 0, now_ms
        for job_id, fields, leased in zip(oldest, read[::2], read[1::2], strict=True):
            if None in fields:  # erased or expired just now
                continue
            total, chunk_items, submitted_ms = map(int, fields)
            running = min(_running(leased, total, chunk_items), unfinished[job_id])
            all_running += running
            if unfinished[job_id] > running:
                oldest_ms = min(oldest_ms, submitted_ms)
        return OpenItems(
            waiting=sum(unfinished.values()) - all_running,
            running=all_running,
            oldest_waiting_s=(now_ms - oldest_ms) / 1000,
            job_count=len(unfinished),
        )

    def recover(self, job_id: str, lost_after_s: float) -> tuple[Lane, list[int]]:
        """Free expired leases and top up the window; gives the chunk indexes to ring for.

        A message that was sent `lost_after_s` ago and not taken counts as lost.
        """
        lost_after_ms = int(lost_after_s * 1000)
        lane, *chunks = self._step("recover", job_id, self.window(), lost_after_ms)
        return Lane(lane.decode()), [int(chunk) for chunk in chunks]

    def messages(self) -> int:
        """Count the messages that lie on the queues."""
        with ledger_errors():
            return sum(int(self._redis.llen(f"piqueue:{lane}")) for lane in Lane)

    def elect_sweeper(self, worker_id: str, term_s: float) -> bool:
        """Give True to one worker a term."""
        with ledger_errors():
            return bool(self._redis.set(_SWEEPER, worker_id, nx=True, px=int(term_s * 1000)))

    def heartbeat(self, worker_id: str, slots: int) -> None:
        """Say that this worker is alive and runs `slots` chunks at a time."""
        with ledger_errors(), self._redis.pipeline(transaction=False) as pipe:
            pipe.set(f"piqueue:worker:{worker_id}", slots, ex=WORKER_SILENT_S)
            pipe.sadd(_WORKERS, worker_id)
            pipe.execute()

    def forget_worker(self, worker_id: str) -> None:
        """Say that this worker has stopped."""
        with ledger_errors():
            self._redis.delete(f"piqueue:worker:{worker_id}")
            self._redis.srem(_WORKERS, worker_id)

    def live_workers(self) -> dict[str, int]:
        """Give the slots of each worker heard of lately."""
        with ledger_errors():
            ids = [worker_id.decode() for worker_id in self._redis.smembers(_WORKERS)]
            slots = self._redis.mget([f"piqueue:worker:{worker_id}" for worker_id in ids] or [""])
            live = {worker: int(count) for worker, count in zip(ids, slots, strict=False) if count}
            if gone := set(ids) - set(live):
                self._redis.srem(_WORKERS, *gone)
            return live

    def window(self) -> int:
        """Chunks of one job that may be on their way at once: twice what runs at a time."""
        read_at, window = self._window
        if time.monotonic() - read_at > WORKER_SILENT_S / 3 or not window:
            window = max(4, 2 * sum(self.live_workers().values()))
            self._window = (time.monotonic(), window)
        return window

    # Reading.

    def job(self, job_id: str) -> Job:
        """Read a job; costs the same for any number of items.

        Raises:
            JobNotFound: there is none of this id, or it has expired.
        """
        return self._read(job_id)[0]

    def job_and_model(self, job_id: str) -> tuple[Job, ModelCard]:
        """Read a job and the model card it is pinned to. Raises JobNotFound."""
        job, (digest,) = self._read(job_id, "model")
        return job, self._card(job_id, digest)

    def _read(self, job_id: str, *strings: str) -> tuple[Job, list[bytes]]:
        """Read a job with some of its keys that hold a string."""
        with ledger_errors(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(self._key(job_id, "meta"))
            pipe.zrange(self._key(job_id, "lease"), 0, -1)
            for key in strings:
                pipe.get(self._key(job_id, key))
            meta, leased, *found = pipe.execute()
        if not meta:
            raise JobNotFound(job_id)
        return _job(job_id, {k.decode(): v.decode() for k, v in meta.items()}, leased), found

    def model(self, job_id: str) -> ModelCard:
        """Read the model card a job is pinned to."""
        with ledger_errors():
            digest = self._redis.get(self._key(job_id, "model"))
        return self._card(job_id, digest)

    def _card(self, job_id: str, digest: bytes | None) -> ModelCard:
        if digest is None:
            raise JobNotFound(job_id)
        if digest not in self._cards:
            with ledger_errors():
                card = self._redis.get(_CARD + digest)
            if card is None:
                raise JobNotFound(job_id)
            self._cards[digest] = ModelCard.model_validate_json(card)
        return self._cards[digest]

    def results(self, job: Job, start_index: int = 0) -> Iterator[StoredResult]:
        """Read the items finished by now, from `start_index` on, in index order.

        A few chunks are held at a time; those not finished cost nothing.

        Raises:
            JobNotFound: the job was erased or expired before all was read.
        """
        finished = self._finished_chunks(job, start_index // job.chunk_items)
        while chunks := list(islice(finished, RESULTS_READ_CHUNKS)):
            with ledger_errors(), self._redis.pipeline(transaction=False) as pipe:
                pipe.hmget(self._key(job.id, "res"), chunks)
                pipe.hmget(self._key(job.id, "in"), chunks)
                packed_results, packed_specs = pipe.execute()
            for chunk, results, specs in zip(chunks, packed_results, packed_specs, strict=True):
                if specs is None:
                    raise JobNotFound(job.id)
                if results is None:
                    continue
                attempts, unpacked = unpack_results(results)
                pairs = zip(unpack_specs(specs), unpacked, strict=True)
                for index, (spec, result) in enumerate(pairs, start=chunk * job.chunk_items):
                    if index >= start_index:
                        yield StoredResult(index, spec, result, attempts)

    def _finished_chunks(self, job: Job, first: int) -> Iterator[int]:
        """Give the chunks that have results, from `first` on, or all of a few."""
        if not job.counts.finished:
            return
        if job.chunk_count <= RESULTS_READ_CHUNKS:
            yield from range(first, job.chunk_count)
            return
        with ledger_errors():
            bits = self._redis.get(self._key(job.id, "done")) or b""
        if not bits:
            raise JobNotFound(job.id)
        for chunk in range(first, min(job.chunk_count, 8 * len(bits))):
            if bits[chunk // 8] >> (7 - chunk % 8) & 1:
                yield chunk

    def retry_index(self, retry: Job, parent_index: int) -> int:
        """Give an index of a retry from which on it has all that it tries again of its parent's
        items from `parent_index` on; it may be a few items early.

        Raises:
            JobNotFound: the retry was erased or has expired.
        """

        def parent_index_of_first(chunk: int) -> int:
            with ledger_errors():
                specs = self._redis.hget(self._key(retry.id, "in"), chunk)
            if specs is None:
                raise JobNotFound(retry.id)
            first = unpack_specs(specs)[0].parent_index
            assert first is not None
            return first

        chunks = range(retry.chunk_count)
        later = bisect_right(chunks, parent_index, key=parent_index_of_first)
        return max(0, later - 1) * retry.chunk_items

    # Ending.

    def cancel(self, job_id: str) -> None:
        """Stop a job; results it has stay. Raises JobNotFound."""
        if not self._step("cancel", job_id):
            raise JobNotFound(job_id)

    def erase(self, job_id: str) -> None:
        """Remove a job with its items and results. Raises JobNotFound."""
        if not self._step("erase", job_id):
            raise JobNotFound(job_id)

    def abandon(self, job_id: str) -> bool:
        """Remove what was stored of a job; False where it was submitted after all and stays."""
        return bool(self._step("abandon", job_id))


def _header(job: NewJob) -> dict[str, Any]:
    optional = {
        "name": job.name,
        "parent_job": job.parent_job,
        "webhook_url": job.webhook_url,
        "traceparent": job.traceparent,
        "options": json.dumps(job.options) if job.options else None,
        "csv": job.csv and json.dumps([job.csv.header, job.csv.url_column, job.csv.id_column]),
    }
    return {
        "owner": job.owner,
        "model": job.model.name,
        "version": job.model.version,
        "sha256": job.model.sha256,
        "ttl_ms": job.ttl_s * 1000,
        "metadata": json.dumps(job.metadata or {}),
        "use_cache": int(job.use_cache),
        "parts": int(job.parts),
        **{field: value for field, value in optional.items() if value is not None},
    }


def _flat(fields: Mapping[str, Any]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]


def _list_key(owner: str) -> str:
    return f"piqueue:jobs:{owner}"


def _running(leased: Sequence[bytes], total: int, chunk_items: int) -> int:
    """Count the items of leased chunks, of which the last may be a short one."""
    return sum(min(chunk_items, total - int(chunk) * chunk_items) for chunk in leased)


def _job(job_id: str, meta: Mapping[str, str], leased: Sequence[bytes]) -> Job:
    def maybe(field: str) -> int | None:
        return int(meta[field]) if field in meta else None

    csv = json.loads(meta["csv"]) if "csv" in meta else None
    total, chunk_items = int(meta["total"]), int(meta["chunk_items"])
    return Job(
        id=job_id,
        owner=meta["owner"],
        status=JobStatus(meta["status"]),
        model=ModelRef(meta["model"], meta["version"], meta["sha256"]),
        lane=Lane(meta["lane"]),
        counts=Counts(
            total=total,
            running=_running(leased, total, chunk_items),
            succeeded=int(meta["succeeded"]),
            failed=int(meta["failed"]),
            cancelled=int(meta["cancelled"]),
            cached=int(meta.get("cached", 0)),
        ),
        chunk_items=chunk_items,
        created_ms=int(meta["created_ms"]),
        expires_ms=int(meta["expires_ms"]),
        started_ms=maybe("started_ms"),
        finished_ms=maybe("finished_ms"),
        name=meta.get("name"),
        metadata=json.loads(meta["metadata"]),
        failures={
            field.removeprefix("failure:"): int(count)
            for field, count in meta.items()
            if field.startswith("failure:")
        },
        hosts=read_hosts(meta.get("hosts", "{}")),
        parent_job=meta.get("parent_job"),
        error=meta.get("error"),
        csv=CsvShape(tuple(csv[0]), *csv[1:]) if csv else None,
        webhook_url=meta.get("webhook_url"),
        parts=meta.get("parts") == "1",
    )
