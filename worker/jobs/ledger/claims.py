"""A claimed chunk, and what earlier attempts say about its items."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from worker.jobs.items import ItemSpec, unpack_specs
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
    packed_specs: bytes = field(repr=False)
    # The checkpointed position at which each earlier attempt died.
    deaths: tuple[int, ...]
    # How long the job waited for this claim.
    waited_s: float
    # Attempts that were deferred for a reason that the items did not cause.
    deferrals: int = 0
    parts: bool = False
    # How many items, the first of the job, get thumbnails.
    thumbnails: int = 0
    traceparent: str | None = None
    # The upload of a job of one item, if it is stored in Redis.
    upload: bytes | None = field(default=None, repr=False)
    # Whether the features of its pictures are stored.
    keep_features: bool = False
    # The job whose kept features are scored; `ItemSpec.parent_index` is the index in it.
    rescore_of: str | None = None

    @cached_property
    def specs(self) -> tuple[ItemSpec, ...]:
        """The items of the chunk."""
        return tuple(unpack_specs(self.packed_specs))

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells this lease from all others, those of the same chunk included."""
        return self.job_id, self.chunk_index, self.attempt

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


def read_claim(
    job_id: bytes,
    chunk_index: int,
    attempt: int,
    waited_ms: int,
    specs: bytes,
    deaths: bytes,
    deferrals: int,
    upload: bytes | None,
    lane: bytes,
    chunk_items: bytes,
    use_cache: bytes | None,
    parts: bytes | None,
    thumbnails: bytes | None,
    model: bytes,
    version: bytes,
    sha256: bytes,
    traceparent: bytes | None,
    keep_features: bytes | None,
    rescore_of: bytes | None,
) -> Claim:
    """Read the answer of `describe` in ledger.lua."""
    return Claim(
        job_id.decode(),
        chunk_index,
        attempt,
        ModelRef(model.decode(), version.decode(), sha256.decode()),
        Lane(lane.decode()),
        chunk_index * int(chunk_items),
        use_cache == b"1",
        specs,
        tuple(int(position) for position in deaths.split()),
        waited_ms / 1000,
        deferrals,
        parts == b"1",
        int(thumbnails or 0),
        traceparent.decode() if traceparent else None,
        upload,
        keep_features == b"1",
        rescore_of.decode() if rescore_of else None,
    )
