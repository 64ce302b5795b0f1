"""The ledger's promises under any interleaving of clients, workers and time."""

from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from redis import Redis

from tests.worker.jobs.ledger.test_store import MODEL, REJECTED, scored
from worker.jobs.errors import JobNotFound
from worker.jobs.items import ItemResult, ItemSpec
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.store import JobStore
from worker.jobs.record import Job, JobStatus, Lane, new_job_id

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


class Ledger(RuleBasedStateMachine):
    """Submits, claims, commits, doubles, cancels, deletes and expires, in any order."""

    redis: Redis

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushdb()
        self.store = JobStore(self.redis)
        self.load = Load(self.redis)
        self.seen: dict[str, LastStatus] = {}
        self.notified: list[tuple[str, int]] = []
        self.claims: list[Claim] = []

    def pick(self, at: int) -> str:
        return list(self.seen)[at % len(self.seen)]

    def notify(self, job_id: str, chunks: list[int]) -> None:
        self.notified += [(job_id, chunk) for chunk in chunks]

    @rule(
        total=st.integers(1, 30),
        chunk_items=st.integers(1, 7),
        budget=st.none() | st.integers(0, 5),
    )
    @precondition(lambda self: len(self.seen) < 4)
    def submit(self, total: int, chunk_items: int, budget: int | None) -> None:
        job = NewJob(new_job_id(), "me", MODEL, ttl_s=3600)
        specs = [ItemSpec(str(index), "http://h/") for index in range(total)]
        for chunk, start in enumerate(range(0, total, chunk_items)):
            self.store.put_chunk(job.id, chunk, specs[start : start + chunk_items])
        self.notify(job.id, self.store.submit(job, Shape(Lane.BULK, total, chunk_items, budget)))
        self.seen[job.id] = LastStatus()

    @precondition(lambda self: self.notified)
    @rule(at=st.integers(0, 99), keep=st.booleans(), dies=st.booleans())
    def claim(self, at: int, keep: bool, dies: bool) -> None:
        """Take a message, which may be delivered again, to a worker that may fall silent."""
        job_id, chunk = self.notified[at % len(self.notified)]
        if not keep:
            self.notified.remove((job_id, chunk))
        claim = self.store.claim(job_id, chunk, lease_s=0.001 if dies else 60)
        if claim is not None:
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(at=st.integers(0, 99), rejected=st.integers(0, 7), again=st.booleans())
    def commit(self, at: int, rejected: int, again: bool) -> None:
        claim = self.claims[at % len(self.claims)]
        if not again:
            self.claims.remove(claim)
        results = ([REJECTED] * rejected + scored(claim))[: len(claim.specs)]
        self.notify(claim.job_id, self.store.commit(claim, results) or [])

    @precondition(lambda self: self.seen)
    @rule(at=st.integers(0, 99))
    def recover(self, at: int) -> None:
        job_id = self.pick(at)
        self.notify(job_id, self.store.recover(job_id, lost_after_s=0)[1])

    @precondition(lambda self: self.notified)
    @rule(at=st.integers(0, 99))
    def lose_a_message(self, at: int) -> None:
        del self.notified[at % len(self.notified)]

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
        keys = list(self.redis.scan_iter(f"piqueue:{{{job_id}}}:*"))
        if keys:
            self.redis.delete(*keys)
        self.store.recover(job_id, lost_after_s=60)
        self.seen[job_id].gone = True

    @invariant()
    def promises_hold(self) -> None:
        waiting = 0
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
            if not job.status.done:
                waiting += job.counts.total - job.counts.finished
        assert self.load.backlog() == self.load.backlog("me") == waiting

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
        """Let time pass: every job that is left ends, with every item accounted for."""
        for job_id, seen in self.seen.items():
            if seen.gone:
                continue
            leases = f"piqueue:{{{job_id}}}:lease"
            for leased in self.redis.zrange(leases, 0, -1):
                self.redis.zadd(leases, {str(int(leased)): 1})  # type: ignore[arg-type]
            while not (job := self.store.job(job_id)).status.done:
                for chunk in self.store.recover(job_id, lost_after_s=0)[1]:
                    claim = self.store.claim(job_id, chunk, lease_s=60)
                    if claim is not None:
                        self.store.commit(claim, scored(claim))
            self.counts_add_up(job)


def test_promises_hold_whatever_happens(redis_client: Redis) -> None:
    from hypothesis.stateful import run_state_machine_as_test

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
