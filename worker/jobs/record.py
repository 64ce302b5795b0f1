"""Jobs as values: status, lane, model, counts and record."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from ulid import ULID

from worker.jobs.host_statistics import HostTally


class JobStatus(StrEnum):
    """The status of a job; it only moves forward in this order."""

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
        """Whether this status is final."""
        return self in (
            JobStatus.SUCCEEDED,
            JobStatus.PARTIALLY_SUCCEEDED,
            JobStatus.FAILED,
            JobStatus.CANCELLED,
        )


class Lane(StrEnum):
    """The lane of a job: interactive jobs go first, and bulk jobs keep a share of the workers."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True)
class ModelRef:
    """The exact model a job is pinned to, or several models, whose fields are joined by "+"."""

    name: str
    version: str
    sha256: str

    @classmethod
    def joined(cls, refs: Iterable[Self]) -> Self:
        """The reference to several models, in this order."""
        fields = ((ref.name, ref.version, ref.sha256) for ref in refs)
        return cls(*map("+".join, zip(*fields, strict=True)))

    @property
    def parts(self) -> list["ModelRef"]:
        """The models, of which there is usually one."""
        fields = (self.name.split("+"), self.version.split("+"), self.sha256.split("+"))
        return [ModelRef(*part) for part in zip(*fields, strict=True)]

    @property
    def several(self) -> list["ModelRef"] | None:
        """The models if there are several, else None."""
        return self.parts if "+" in self.name else None

    @property
    def text(self) -> str:
        """`name@version`, by which the catalog finds it; of several, joined by "+"."""
        return "+".join(f"{part.name}@{part.version}" for part in self.parts)

    @property
    def key(self) -> str:
        """The key in Redis; two versions may share a file and differ in calibration."""
        return "+".join(f"{one.name}@{one.version}:{one.sha256[:16]}" for one in self.parts)


class NumberKind(StrEnum):
    """What all cells of a submitted column are that are not empty: 64-bit integers or doubles."""

    INTEGER = "integer"
    DECIMAL = "decimal"

    def read(self, cell: str) -> int | float:
        """The number that a cell is."""
        return int(cell) if self is NumberKind.INTEGER else float(cell)


@dataclass(frozen=True)
class CsvShape:
    """The columns of the submitted table, which results repeat, or those derived from other items.

    `url_column` holds the file name of an upload; without `id_column` results have no ids. The
    columns in `numbers` hold only numbers, in all items of the job.
    """

    header: tuple[str, ...]
    url_column: str
    id_column: str | None
    numbers: Mapping[str, NumberKind] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """Items by state; the states always add up to `total`."""

    total: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    # The succeeded items whose scores came from the cache.
    cached: int = 0

    @property
    def waiting(self) -> int:
        """Items that no worker has claimed."""
        return self.total - self.running - self.finished - self.cancelled

    @property
    def finished(self) -> int:
        """Items that have a result."""
        return self.succeeded + self.failed


# Why a whole job failed, by the code in its record.
JOB_ERRORS = {"failure_budget": "failure_budget: more items failed than max_failures allows"}


@dataclass(frozen=True)
class Job:
    """A job as read from Redis; times are milliseconds since 1970 in UTC."""

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
    # Download statistics of its hosts, in no order.
    hosts: tuple[HostTally, ...] = ()
    parent_job: str | None = None
    # The job whose kept features this one scores.
    rescore_of: str | None = None
    error: str | None = None
    csv: CsvShape | None = None
    webhook_url: str | None = field(default=None, repr=False)
    # Whether results are also written to S3.
    parts: bool = False
    # How many items, the first of the job, get thumbnails.
    thumbnails: int = 0
    # Whether the features of its pictures are stored.
    keep_features: bool = False

    @property
    def chunk_count(self) -> int:
        """The number of chunks of the job."""
        return -(-self.counts.total // self.chunk_items)


def new_job_id() -> str:
    """Make an id that sorts by time and cannot be guessed (80 random bits)."""
    return f"job_{ULID()}"


def utc(milliseconds: int) -> datetime:
    """The time of a stamp in milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
