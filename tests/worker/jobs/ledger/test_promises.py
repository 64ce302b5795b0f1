"""The ledger's promises under any interleaving of clients, workers and time."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from redis import Redis

from tests.worker.jobs.ledger.test_store import MODEL, REJECTED, scored
from worker.jobs.errors import JobNotFound, QueueFull
from worker.jobs.items import ImageFacts, ItemResult, ItemSpec
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.layout import NewJob, Shape, SubmissionLimits
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.store import JobStore
from worker.jobs.record import Job, JobStatus, Lane, new_job_id
from worker.jobs.storage.redis_blobs import RedisBlobs

ORDER = {
    JobStatus.DRAFT: 0,
    JobStatus.QUEUED: 1,
    JobStatus.RUNNING: 2,
    JobStatus.CANCELLING: 3,
    JobStatus.SUCCEEDED: 4,
    JobStatus.PARTIALLY_SUCCEEDED: 4,
    JobStatus.FAILED: 4,
    JobStatus.CANCELLED: 4,
}


@dataclass
class LastStatus:
    """What was true of a job the last time it was looked at."""

    status: JobStatus = JobStatus.QUEUED
    # Results by item index: once given, they never change.
    results: dict[int, ItemResult] = field(default_factory=dict)
    gone: bool = False


UPLOAD = b"a picture"
OWNERS = {"ann": 1, "ben": 1, "cy": 2}
MAX_CHUNK_ITEMS = 7


class Ledger(RuleBasedStateMachine):
    """Steps of clients, workers and recovery in any order, each perhaps repeated."""

    redis: Any  # redis-py annotates answers as either awaited or not

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushdb()
        self.store = JobStore(self.redis)
        self.load = Load(self.redis)
        self.seen: dict[str, LastStatus] = {}
        self.claims: list[Claim] = []
        self.virtual: dict[bytes, float] = {}
        # By lane and two owners: how many items / weight the first was served more than the second
        # since both wait.
        self.leads: dict[tuple[Lane, str, str], float] = defaultdict(float)
        self.redis.hset("piqueue:weights", mapping=OWNERS)
        self.model = MODEL

    def pick(self, at: int) -> str:
        return list(self.seen)[at % len(self.seen)]

    @rule(
        owner=st.sampled_from(list(OWNERS)),
        lane=st.sampled_from(Lane),
        total=st.just(1) | st.integers(1, 30),
        chunk_items=st.integers(1, MAX_CHUNK_ITEMS),
        budget=st.none() | st.integers(0, 5),
        again=st.booleans(),
    )
    @precondition(lambda self: len(self.seen) < 6)
    def submit(
        self,
        owner: str,
        lane: Lane,
        total: int,
        chunk_items: int,
        budget: int | None,
        again: bool,
    ) -> None:
        """Submit a job; the answer may be lost, and the request is repeated."""
        job = NewJob(new_job_id(), owner, self.model, ttl_s=3600)
        specs = [ItemSpec(str(index), "http://h/") for index in range(total)]
        uploads = {}
        if total == 1:
            specs, uploads = [ItemSpec("upload")], {"upload": UPLOAD}
        for chunk, start in enumerate(range(0, total, chunk_items)):
            self.store.put_chunk(job.id, chunk, specs[start : start + chunk_items])
        size = sum(map(len, uploads.values()))
        shape = Shape(lane, total, chunk_items, budget)
        for _ in range(1 + again):
            self.store.submit(job, shape, uploads=uploads, upload_bytes=size)
        self.seen[job.id] = LastStatus()

    @rule(owner=st.sampled_from(list(OWNERS)), total=st.integers(1, 9), again=st.booleans())
    @precondition(lambda self: len(self.seen) < 6)
    def open_draft(self, owner: str, total: int, again: bool) -> None:
        """Open a draft and add uploads; the answer may be lost, and the request is repeated."""
        draft = NewJob(new_job_id(), owner, self.model, ttl_s=3600)
        self.store.open_draft(draft)
        items = [(b"%d" % at, ItemSpec(str(at))) for at in range(total)]
        self.store.reserve(draft.id, [(spec.id, name, b"") for name, spec in items])
        RedisBlobs(self.redis).put(draft.id, {spec.id: UPLOAD for _, spec in items}, 3600)
        for _ in range(1 + again):
            self.store.add(draft.id, items, total, total * len(UPLOAD))
        self.seen[draft.id] = LastStatus(JobStatus.DRAFT)

    @precondition(lambda self: self.seen)
    @rule(at=st.integers(0, 99), chunk_items=st.integers(1, MAX_CHUNK_ITEMS), full=st.booleans())
    def submit_draft(self, at: int, chunk_items: int, full: bool) -> None:
        job_id = self.pick(at)
        if self.seen[job_id].gone or self.seen[job_id].status is not JobStatus.DRAFT:
            return
        draft = self.store.job(job_id)
        specs = next(self.store.draft_items(job_id, draft.counts.total))
        starts = range(0, len(specs), chunk_items)
        chunks = {at // chunk_items: specs[at : at + chunk_items] for at in starts}
        job = NewJob(job_id, draft.owner, self.model, ttl_s=3600)
        shape = Shape(Lane.BULK, draft.counts.total, chunk_items)
        if full:
            with pytest.raises(QueueFull):
                self.store.submit(job, shape, None, chunks, limits=SubmissionLimits(items_of_all=0))
        else:
            self.store.submit(job, shape, None, chunks)

    @rule()
    def promote(self) -> None:
        """New jobs use a new version of the model; workers prefer it, and finish the old ones."""
        version = str(int(self.model.version) + 1)
        self.model = MODEL.model_copy(update={"version": version, "sha256": f"{int(version):064x}"})

    @rule(dies=st.booleans(), lost=st.booleans(), most=st.integers(1, MAX_CHUNK_ITEMS))
    def claim(self, dies: bool, lost: bool, most: int) -> None:
        """Claim for a worker that may fall silent; another worker then claims the chunks again.

        The answer may be lost, and the request is repeated.
        """
        lease_s = 0.001 if dies else 60
        ready = {lane: self.waiting_owners(lane) for lane in Lane}
        with patch("worker.jobs.ledger.store.secrets.token_hex", return_value=new_job_id()):
            warm = [self.model.ref.key]
            claims = self.store.claim_next(lease_s, bulk_share=0.2, warm=warm, most=most)
            if lost and not dies:
                again = self.store.claim_next(lease_s, bulk_share=0.2, warm=warm, most=most)
                assert again == claims
        assert len(claims) <= most
        for claim in claims:
            for other in self.claims:
                if (other.job_id, other.chunk_index) == (claim.job_id, claim.chunk_index):
                    assert claim.attempt > other.attempt
                    assert not self.store.renew(other, 60), "two hold a lease of the same chunk"
            self.claims.append(claim)
            owner = self.store.job(claim.job_id).owner
            for other_owner in ready[claim.lane] - {owner}:
                turn = len(claim.specs) / OWNERS[owner]
                self.leads[claim.lane, owner, other_owner] += turn
                self.leads[claim.lane, other_owner, owner] -= turn

    def waiting_owners(self, lane: Lane) -> set[str]:
        return {owner.decode() for owner in self.redis.zrange(f"piqueue:ready:{lane}", 0, -1)}

    @precondition(lambda self: self.claims)
    @rule(at=st.integers(0, 99), delay_s=st.sampled_from([0, 0.001, 60]))
    def release(self, at: int, delay_s: float) -> None:
        self.store.release(self.claims.pop(at % len(self.claims)), delay_s)

    @precondition(lambda self: self.claims)
    @rule(at=st.integers(0, 99), rejected=st.integers(0, 7), again=st.booleans())
    def commit(self, at: int, rejected: int, again: bool) -> None:
        claim = self.claims[at % len(self.claims)]
        if not again:
            self.claims.remove(claim)
        image = ImageFacts("", len(UPLOAD))
        found = [replace(result, image=image) for result in scored(claim)]
        results = ([REJECTED] * rejected + found)[: len(claim.specs)]
        self.store.commit(claim, results)

    @rule()
    def recover(self) -> None:
        self.store.recover()

    @precondition(lambda self: self.seen)
    @rule(at=st.integers(0, 99))
    def cancel(self, at: int) -> None:
        job_id = self.pick(at)
        if not self.seen[job_id].gone:
            self.store.cancel(job_id)

    @precondition(lambda self: self.seen)
    @rule(at=st.integers(0, 99))
    def delete(self, at: int) -> None:
        job_id = self.pick(at)
        if not self.seen[job_id].gone:
            self.store.erase(job_id)
            self.seen[job_id].gone = True

    @precondition(lambda self: self.seen)
    @rule(at=st.integers(0, 99))
    def expire(self, at: int) -> None:
        job_id = self.pick(at)
        entries = {f"expire {job_id} {owner}": 1 for owner in OWNERS}
        self.redis.zadd("piqueue:expiries", entries, xx=True)
        self.store.recover()
        self.seen[job_id].gone = True

    @invariant()
    def promises_hold(self) -> None:
        waiting: Counter[str] = Counter()
        unfinished = running = 0
        for job_id, seen in self.seen.items():
            if seen.gone:
                with pytest.raises(JobNotFound):
                    self.store.job(job_id)
                continue
            job = self.store.job(job_id)
            self.counts_add_up(job)
            assert ORDER[job.status] >= ORDER[seen.status]
            if seen.status.done:
                assert job.status is seen.status
            seen.status = job.status
            results = {found.index: found.result for found in self.store.results(job)}
            assert results.items() >= seen.results.items(), "a result was lost or changed"
            assert len(results) == job.counts.finished
            seen.results = results
            if not job.status.done and job.status is not JobStatus.DRAFT:
                unfinished += 1
                waiting[job.owner] += job.counts.total - job.counts.finished
                running += job.counts.running
                self.is_ready_if_a_chunk_waits(job)
        assert self.load.backlogs(*OWNERS) == [waiting[owner] for owner in OWNERS]
        assert self.load.backlog() == waiting.total()
        leases = [entry for entry in self.due() if entry[0] == "lease"]
        counted = self.load.open_items()
        assert counted.job_count == unfinished
        assert counted.running == sum(int(entry[3]) for entry in leases)
        assert running <= counted.running

    @invariant()
    def stored_uploads_are_counted(self) -> None:
        stored: Counter[str] = Counter()
        for job_id, seen in self.seen.items():
            if not seen.gone:
                sizes = map(len, self.redis.hvals(f"piqueue:{{{job_id}}}:blobs"))
                stored[self.store.job(job_id).owner] += sum(sizes)
        assert [self.load.upload_bytes(owner) for owner in OWNERS] == [
            stored[owner] for owner in OWNERS
        ]

    @invariant()
    def virtual_times_move_forward(self) -> None:
        now = {level: float(time) for level, time in self.redis.hgetall("piqueue:virtual").items()}
        for level, time in self.virtual.items() if now else ():
            assert now[level] >= time, level
        self.virtual = now

    @invariant()
    def no_share_falls_short_by_more_than_a_chunk_of_each(self) -> None:
        for lane, one, other in list(self.leads):
            if not {one, other} <= self.waiting_owners(lane):
                del self.leads[lane, one, other]
        for (_, one, other), lead in self.leads.items():
            assert lead <= MAX_CHUNK_ITEMS / OWNERS[one] + MAX_CHUNK_ITEMS / OWNERS[other]

    def due(self) -> list[list[str]]:
        return [entry.decode().split() for entry in self.redis.zrange("piqueue:due", 0, -1)]

    def is_ready_if_a_chunk_waits(self, job: Job) -> None:
        """A job is in the ready index exactly if a chunk of it has no lease, delay or result."""
        away = {int(entry[2]) for entry in self.due() if entry[1] == job.id}
        done = {result.index // job.chunk_items for result in self.store.results(job)}
        chunks = set(range(job.chunk_count)) - away - done
        ready = self.redis.zscore(f"piqueue:ready:{job.lane}:{job.owner}", job.id) is not None
        assert ready == (bool(chunks) and job.status is not JobStatus.CANCELLING)

    def counts_add_up(self, job: Job) -> None:
        counts = job.counts
        parts = (
            counts.waiting,
            counts.running,
            counts.succeeded,
            counts.failed,
            counts.cancelled,
        )
        assert sum(parts) == counts.total
        assert min(parts) >= 0
        if job.status.done:
            assert counts.waiting == counts.running == 0
        match job.status:
            case JobStatus.SUCCEEDED:
                assert counts.succeeded == counts.total
            case JobStatus.PARTIALLY_SUCCEEDED:
                assert counts.cancelled == 0
                assert min(counts.succeeded, counts.failed) > 0
            case JobStatus.FAILED:
                assert counts.failed > 0

    def teardown(self) -> None:
        """Let time pass: every job that is left ends with every item counted, and expires."""
        for job_id, seen in self.seen.items():
            if seen.gone or self.store.job(job_id).status is JobStatus.DRAFT:
                continue
            while not (job := self.store.job(job_id)).status.done:
                for entry in self.due():
                    self.redis.zadd("piqueue:due", {" ".join(entry): 1})
                self.store.recover()
                for claim in self.store.claim_next(60, bulk_share=0.2):
                    self.store.commit(claim, scored(claim))
            self.counts_add_up(job)
        for key in ("piqueue:due", "piqueue:expiries"):
            for entry in self.redis.zrange(key, 0, -1):
                self.redis.zadd(key, {entry: 1})
        while self.store.recover():
            pass
        left = {key.decode().split(":")[1] for key in self.redis.scan_iter()}
        assert left <= {
            "clock",
            "weights",
            "running",
            "rate",
            "card",
            "claim",
            "wake-ups",
        }
        assert self.redis.get("piqueue:running") in (None, b"0")


def test_promises_hold_whatever_happens(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    # One slot, so that one claim may take all small jobs.
    monkeypatch.setattr("worker.jobs.ledger.store.MIN_SLOTS", 1)
    machine = type("BoundLedger", (Ledger,), {"redis": redis_client})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
