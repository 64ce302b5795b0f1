"""Recovers work that stalled: expired leases and lost messages; one elected worker does it."""

import structlog

from worker.jobs.ledger.store import JobStore
from worker.jobs.queue import Notifier

# A worker takes a message at once if the queue is empty, and in turn if it is not.
LOST_AFTER_S = 30
LOST_FROM_EMPTY_QUEUE_AFTER_S = 5
# With this many messages the workers are far behind, and no message counts as lost.
FAR_BEHIND = 1000
NEVER_S = 1e9

log = structlog.get_logger()


def recover_stalled_work(store: JobStore, notifier: Notifier) -> None:
    """Free expired leases and fill windows in all open jobs, and notify for what was lost."""
    jobs = store.open_jobs()
    if not jobs:
        return
    messages = store.messages()
    lost_after_s: float = LOST_AFTER_S if messages else LOST_FROM_EMPTY_QUEUE_AFTER_S
    if messages >= FAR_BEHIND:
        lost_after_s = NEVER_S
    for job_id in jobs:
        lane, chunks = store.recover(job_id, lost_after_s)
        if chunks:
            log.info("notified_again", job_id=job_id, chunks=chunks)
            notifier.notify(job_id, chunks, lane)
