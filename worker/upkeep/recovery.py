"""The sweep: what fell to the ground is picked up, by one elected worker at a time."""

import structlog

from worker.jobs.ledger.store import JobStore
from worker.jobs.queue import Notifier

# A message is taken at once where the queue is empty, and in its turn where it is not.
LOST_AFTER_S = 30
LOST_FROM_EMPTY_QUEUE_AFTER_S = 5
# Above this many messages the workers are far behind, and none is taken for lost.
FAR_BEHIND = 1000
NEVER_S = 1e9

log = structlog.get_logger()


def sweep(store: JobStore, bell: Notifier) -> None:
    """Look after every open job: expired leases, lost messages, windows, forgotten jobs."""
    jobs = store.open_jobs()
    if not jobs:
        return
    lost_after_s = _lost_after_s(store.messages())
    for job_id in jobs:
        lane, chunks = store.recover(job_id, lost_after_s)
        if chunks:
            log.info("rung_again", job_id=job_id, chunks=chunks)
            bell.ring(job_id, chunks, lane)


def _lost_after_s(messages: int) -> float:
    if messages == 0:
        return LOST_FROM_EMPTY_QUEUE_AFTER_S
    return LOST_AFTER_S if messages < FAR_BEHIND else NEVER_S
