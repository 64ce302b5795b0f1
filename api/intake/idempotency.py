"""Idempotency-Key: a request that is sent again returns the job that the first one created."""

from collections.abc import Callable
from functools import partial

from api.services import Services
from worker.jobs.errors import IdempotencyMismatch, JobRefused
from worker.jobs.ledger.layout import ExpiringKey

MAX_KEY_CHARS = 255

# Makes the entry that stores a key's fingerprint and job id; None for a request without a key.
MakeEntry = Callable[[str, str], ExpiringKey | None]


def check_key(key: str | None) -> None:
    """Raise JobRefused if an idempotency key is empty or too long."""
    if key is not None and not 0 < len(key) <= MAX_KEY_CHARS:
        raise JobRefused(
            f"the Idempotency-Key has {len(key)} characters: send one of 1 to {MAX_KEY_CHARS}"
        )


def create_once(
    services: Services,
    owner: str,
    key: str | None,
    fingerprint: Callable[[], str],
    create: Callable[[MakeEntry], str],
) -> tuple[str, bool]:
    """Create a job; return its id, and whether an earlier request with the same key had created it.

    `fingerprint` computes that of the request. `create` writes the job and the entry of its key
    in one step, so that an API process that dies leaves both or none. Without a key the job is
    always created.

    Raises:
        IdempotencyInFlight: a request with this key is in progress.
        IdempotencyMismatch: the key was used for a different request.
        PiqueueError: the job was refused; the key is free again.
    """
    if key is None:
        return create(lambda _fingerprint, _job_id: None), False
    check_key(key)
    before = services.idempotency.begin(owner, key)
    if before is not None:
        if fingerprint() != before.fingerprint:
            raise IdempotencyMismatch(
                "this Idempotency-Key was used for a different request: use a new key"
            )
        return before.job_id, True
    try:
        with services.idempotency.renewed(owner, key):
            return create(partial(services.idempotency.entry, owner, key)), False
    except BaseException:
        services.idempotency.release(owner, key)
        raise
