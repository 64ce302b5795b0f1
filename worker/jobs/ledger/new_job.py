"""A job that is about to be stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.jobs.models.catalog import ModelCard
from worker.jobs.record import CsvShape, Lane


@dataclass(frozen=True)
class NewJob:
    """The part of a job that the caller chooses; the store adds the rest."""

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
    # Whether results are also written to S3.
    parts: bool = False
    # The options as the client sent them, for `JobReader.options`.
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # The W3C trace context of the submission; None if it is not traced.
    traceparent: str | None = None


@dataclass(frozen=True)
class Shape:
    """The part of a job that is known after all items are stored."""

    lane: Lane
    total: int
    chunk_items: int
    max_failures: int | None = None


@dataclass(frozen=True)
class ExpiringKey:
    """A key that is written in the same step as a job and expires after `ttl_s`."""

    key: str
    value: str
    ttl_s: int
