"""The sweep: what fell to the ground is picked up, by one elected worker at a time."""

import structlog

from worker.jobs.queue import DoorBell
from worker.jobs.store import JobStore

# Above this many messages none is taken for lost: it may just be far behind.
RING_AGAIN_BELOW = 1000

log = structlog.get_logger()


def sweep(store: JobStore, bell: DoorBell) -> None:
    """Look after every open job: expired leases, lost messages, windows, forgotten jobs."""
    jobs = store.open_jobs()
    if not jobs:
        return
    ring_again = store.messages() < RING_AGAIN_BELOW
    for job_id in jobs:
        lane, chunks = store.recover(job_id, ring_again=ring_again)
        if chunks:
            log.info("rung_again", job_id=job_id, chunks=chunks)
            bell.ring(job_id, chunks, lane)
