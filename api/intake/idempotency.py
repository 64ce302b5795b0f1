"""Submissions that may be sent again: under an Idempotency-Key each makes one job."""

from collections.abc import Callable
from functools import partial

from api.services import Services
from worker.jobs.errors import IdempotencyMismatch, JobRefused
from worker.jobs.ledger.new_job import ExpiringKey
from worker.jobs.record import Job

MAX_KEY_CHARS = 255

# Gives the note of a fingerprint and a job's id.
Noting = Callable[[str, str], ExpiringKey]


def once(
    services: Services,
    owner: str,
    key: str,
    fingerprint: Callable[[], str],
    make: Callable[[Noting], Job],
) -> tuple[Job, bool]:
    """Make a job; gives it, and whether it is the one that `key` made before.

    `fingerprint` gives that of the submission. `make` makes the job, and writes the note of its
    fingerprint and id in the same step: an API that dies right then has made both or none.

    Raises:
        IdempotencyInFlight: a submission with this key is being taken in right now.
        IdempotencyMismatch: the key made a job of another submission.
        PiqueueError: the job was refused; the key is free again.
    """
    if not 0 < len(key) <= MAX_KEY_CHARS:
        raise JobRefused(f"an Idempotency-Key has 1 to {MAX_KEY_CHARS} characters")
    before = services.idempotency.begin(owner, key)
    if before is not None:
        if fingerprint() != before.fingerprint:
            raise IdempotencyMismatch(
                "this Idempotency-Key was used for another submission: use a new key"
            )
        return services.store.job(before.job_id), True
    try:
        with services.idempotency.renewed(owner, key):
            return make(partial(services.idempotency.entry, owner, key)), False
    except BaseException:
        services.idempotency.release(owner, key)
        raise
