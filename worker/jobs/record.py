"""Jobs as values: status, lane, model, counts and record."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ulid import ULID

from worker.jobs.host_statistics import HostTally


class JobStatus(StrEnum):
    """Where a job stands; it only ever moves forward in this order."""

    DRAFT = "draft"
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    PARTIALLY_SUCCEEDED = "partially_succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def done(self) -> bool:
        """Whether this status is a last one."""
        return self in (
            JobStatus.SUCCEEDED,
            JobStatus.PARTIALLY_SUCCEEDED,
            JobStatus.FAILED,
            JobStatus.CANCELLED,
        )


class Lane(StrEnum):
    """The queue a job's chunks travel on; workers take from both in turn."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True)
class ModelRef:
    """The exact model a job is pinned to."""

    name: str
    version: str
    sha256: str

    @property
    def key(self) -> str:
        """Name it in Redis; two versions may share a file and differ in what its scores mean."""
        return f"{self.name}@{self.version}:{self.sha256[:16]}"


@dataclass(frozen=True)
class CsvShape:
    """How the items read as a table, for results that repeat it: as their CSV was, or as laid out
    for them. `url_column` holds the file name of an upload; without `id_column` ids are not shown.
    """

    header: tuple[str, ...]
    url_column: str
    id_column: str | None


@dataclass(frozen=True)
class Counts:
    """Items by state; they always add up to `total`."""

    total: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    # Of the succeeded ones, those whose scores came from the cache.
    cached: int = 0

    @property
    def waiting(self) -> int:
        """Items that no worker holds yet."""
        return self.total - self.running - self.finished - self.cancelled

    @property
    def finished(self) -> int:
        """Items that have a result."""
        return self.succeeded + self.failed


# Why a job as a whole failed, by the code in its record.
JOB_ERRORS = {"failure_budget": "failure_budget: more items failed than max_failures allows"}


@dataclass(frozen=True)
class Job:
    """A job as it stands in Redis; times are milliseconds since 1970 in UTC."""

    id: str
    owner: str
    status: JobStatus
    model: ModelRef
    lane: Lane
    counts: Counts
    chunk_items: int
    created_ms: int
    expires_ms: int
    started_ms: int | None = None
    finished_ms: int | None = None
    name: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    # How the hosts of its URLs fared, in no order.
    hosts: tuple[HostTally, ...] = ()
    parent_job: str | None = None
    error: str | None = None
    csv: CsvShape | None = None
    webhook_url: str | None = field(default=None, repr=False)
    # Whether the results are written to S3 besides.
    parts: bool = False

    @property
    def chunk_count(self) -> int:
        """Chunks the job is cut into."""
        return -(-self.counts.total // self.chunk_items)


def new_job_id() -> str:
    """Make an id that sorts by time and cannot be guessed (80 random bits)."""
    return f"job_{ULID()}"


def utc(milliseconds: int) -> datetime:
    """Give the time of a stamp, which is in ms since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
