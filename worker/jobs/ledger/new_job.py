"""What is said of a job that is about to be stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.jobs.models.catalog import ModelCard
from worker.jobs.record import CsvShape, Lane


@dataclass(frozen=True)
class NewJob:
    """What the caller decides of a job; the store adds the rest."""

    id: str
    owner: str
    model: ModelCard
    ttl_s: int
    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    parent_job: str | None = None
    csv: CsvShape | None = None
    use_cache: bool = False
    webhook_url: str | None = field(default=None, repr=False)
    # Whether the results are written to S3 besides.
    parts: bool = False
    # What the client said of it, as it said it; `JobReader.options` gives it back.
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # The W3C trace context of its submission; None where that was not traced.
    traceparent: str | None = None


@dataclass(frozen=True)
class Shape:
    """What is known of a job once all its items are stored."""

    lane: Lane
    total: int
    chunk_items: int
    max_failures: int | None = None


@dataclass(frozen=True)
class ExpiringKey:
    """What is written in the step that makes a job, for `ttl_s`."""

    key: str
    value: str
    ttl_s: int
