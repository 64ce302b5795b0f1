"""Compares the pictures of jobs by their kept features, when somebody asks what is alike."""

from collections.abc import Iterator

import numpy as np
import structlog
from redis import Redis

from model.artifact.subprocess_module import ModuleFailed
from model.compare import Comparison, Picture, compare
from worker.jobs.errors import JobNotFound, LedgerUnavailable, QueueFull, StorageUnavailable
from worker.jobs.ledger.reader import JobReader
from worker.jobs.record import Job
from worker.jobs.settings import Settings
from worker.jobs.storage.blobs import open_storage
from worker.jobs.storage.comparisons import Comparisons
from worker.jobs.storage.features import with_kept
from worker.jobs.storage.similar import (
    MOST_MEMBERS,
    NOTHING,
    Group,
    SimilarPictures,
    Summary,
    pack_neighbours,
)
from worker.upkeep.periodic import PeriodicThread

POLL_S = 2.0
# Another worker takes a job over if this one has not compared it after the time of a slow machine.
LEASE_S = 60.0
PICTURES_A_S = 300
# Failed comparisons, as for lack of memory, are tried again.
RETRY_S = 60

log = structlog.get_logger()


class ComparisonThread(PeriodicThread):
    """Compares the pictures of one job after the other, until stopped."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        super().__init__("comparison", POLL_S, self._poll, stop_s=0)
        self._blobs, _ = open_storage(settings, redis)
        self._jobs, self._due = JobReader(redis), Comparisons(redis)

    def _poll(self) -> None:
        try:
            self.run_due()
        except LedgerUnavailable as error:
            log.warning("comparison_failed", reason=str(error))

    def run_due(self) -> None:
        """Compare what is due now."""
        for job_id in self._due.due(1):
            try:
                job = self._jobs.job(job_id)
                if self._due.claim(job_id, LEASE_S + job.counts.total / PICTURES_A_S):
                    self._compare(job)
                    self._due.remove(job_id)
            except JobNotFound:
                self._due.remove(job_id)
            except (StorageUnavailable, QueueFull, ModuleFailed) as error:
                log.warning("comparison_deferred", job_id=job_id, reason=str(error))
                self._due.move(job_id, RETRY_S)

    def _compare(self, job: Job) -> None:
        model = self._jobs.model(job.id)
        backbone = model.first_backbone
        found = compare(self._pictures(job, backbone)) if backbone else None
        if backbone:
            store(SimilarPictures(self._blobs, job.id, backbone), job.counts.total, found)
            log.info(
                "pictures_compared", job_id=job.id, items=0 if found is None else len(found.numbers)
            )

    def _pictures(self, job: Job, backbone: str) -> Iterator[Picture]:
        for stored, kept in with_kept(self._blobs, job, backbone, self._jobs.results(job)):
            if self.stopping.is_set():
                raise StorageUnavailable("the worker stops")
            if kept is not None:
                assert stored.result.image is not None
                digest = bytes.fromhex(stored.result.image.sha256)
                yield Picture(stored.index, digest, kept.features, kept.difference_hash)


def store(similar: SimilarPictures, total: int, found: Comparison | None) -> None:
    """Store a comparison of the pictures of a job with `total` items."""
    if found is None:
        similar.store(Summary(0, 0, 0), [], [])
        return
    # By group, then by number; the largest groups first.
    order = np.lexsort((found.numbers, found.groups))
    firsts, starts, counts = np.unique(found.groups[order], return_index=True, return_counts=True)
    large = np.flatnonzero(counts > 1)
    large = large[np.lexsort((firsts[large], -counts[large]))]
    members = found.numbers[order]

    def rows() -> Iterator[bytes]:
        at = np.full(total, -1, np.int64)
        at[found.numbers] = np.arange(len(found.numbers))
        for row in at.tolist():
            if row < 0:
                yield NOTHING
                continue
            pairs = zip(found.neighbours[row].tolist(), found.similarity[row].tolist(), strict=True)
            yield pack_neighbours(pair for pair in pairs if pair[0] >= 0)

    groups = (
        Group(int(counts[one]), members[starts[one] :][: min(counts[one], MOST_MEMBERS)].tolist())
        for one in large
    )
    duplicates = int(counts[large].sum()) - len(large)
    similar.store(Summary(len(found.numbers), len(large), duplicates), rows(), groups)
