"""A chunk that a worker holds, and what the attempts before say of its items."""

from collections import Counter
from dataclasses import dataclass

from worker.jobs.items import ItemSpec
from worker.jobs.record import Lane, ModelRef

MAX_UNEXPLAINED_ATTEMPTS = 6
QUARANTINE_DEATHS = 2


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
    deferrals: int = 0
    parts: bool = False
    traceparent: str | None = None

    @property
    def tries(self) -> int:
        """Attempts at the items themselves, this one included."""
        return self.attempt - self.deferrals

    @property
    def first_try(self) -> bool:
        """Whether no attempt was lost on this chunk before."""
        return self.tries == 1

    @property
    def exhausted(self) -> bool:
        """Whether too many attempts ended without naming the item they died at."""
        return self.tries - len(self.deaths) > MAX_UNEXPLAINED_ATTEMPTS

    @property
    def quarantined(self) -> frozenset[int]:
        """Positions given up: one death may come from outside, two at one item come from it."""
        deaths = Counter(self.deaths)
        return frozenset(at for at, count in deaths.items() if count >= QUARANTINE_DEATHS)
