"""A claimed chunk, and what earlier attempts say about its items."""

from collections import Counter
from dataclasses import dataclass

from worker.jobs.items import ItemSpec
from worker.jobs.record import Lane, ModelRef

MAX_UNEXPLAINED_ATTEMPTS = 6
QUARANTINE_DEATHS = 2


@dataclass(frozen=True)
class Claim:
    """A chunk that a worker has claimed; `attempt` (from 1) identifies the lease."""

    job_id: str
    chunk_index: int
    attempt: int
    model: ModelRef
    lane: Lane
    first_index: int
    use_cache: bool
    specs: tuple[ItemSpec, ...]
    # The checkpointed position at which each earlier attempt died.
    deaths: tuple[int, ...]
    # Time since the last notification; None if unknown.
    waited_s: float | None
    # Attempts that were deferred for a reason that the items did not cause.
    deferrals: int = 0
    parts: bool = False
    traceparent: str | None = None

    @property
    def tries(self) -> int:
        """Attempts at the items themselves, including this one."""
        return self.attempt - self.deferrals

    @property
    def first_try(self) -> bool:
        """Whether no earlier attempt died on this chunk."""
        return self.tries == 1

    @property
    def exhausted(self) -> bool:
        """Whether too many attempts died without a checkpoint."""
        return self.tries - len(self.deaths) > MAX_UNEXPLAINED_ATTEMPTS

    @property
    def quarantined(self) -> frozenset[int]:
        """Poison items by position: one death may have another cause, two at one item do not."""
        deaths = Counter(self.deaths)
        return frozenset(at for at, count in deaths.items() if count >= QUARANTINE_DEATHS)
