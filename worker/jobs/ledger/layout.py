"""How a job is stored in Redis: a new job, the keys, and the record as the fields of a hash."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.jobs.host_statistics import read_hosts
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import Counts, CsvShape, Job, JobStatus, Lane, ModelRef, NumberKind


@dataclass(frozen=True)
class NewJob:
    """The part of a job that the caller chooses; the store adds the rest."""

    id: str
    owner: str
    model: ModelCard
    ttl_s: int
    # Whether the lists of its owner have it.
    listed: bool = True
    # Whether its submitter waits; of one item, the event of its end then has its results.
    awaited: bool = False
    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    parent_job: str | None = None
    rescore_of: str | None = None
    csv: CsvShape | None = None
    use_cache: bool = False
    keep_features: bool = False
    webhook_url: str | None = field(default=None, repr=False)
    # Whether results are also written to S3.
    parts: bool = False
    # How many items, the first of the job, get thumbnails.
    thumbnails: int = 0
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


@dataclass(frozen=True)
class SubmissionLimits:
    """How many items may be unfinished, and what their owner may store, a new job included."""

    items_of_owner: float = math.inf
    items_of_all: float = math.inf
    upload_bytes: float = math.inf


NO_LIMITS = SubmissionLimits()


def job_key(job_id: str, key: str) -> str:
    """The name of a key of a job."""
    return f"piqueue:{{{job_id}}}:{key}"


def fields_of(job: NewJob) -> dict[str, Any]:
    """The fields of a job that are known before its items."""
    optional = {
        "name": job.name,
        "parent_job": job.parent_job,
        "rescore_of": job.rescore_of,
        "webhook_url": job.webhook_url,
        "traceparent": job.traceparent,
        "keep_features": 1 if job.keep_features else None,
        "thumbnails": job.thumbnails or None,
        "unlisted": None if job.listed else 1,
        "awaited": 1 if job.awaited else None,
        "options": json.dumps(job.options) if job.options else None,
        "csv": job.csv and json.dumps([job.csv.header, job.csv.url_column, job.csv.id_column]),
        # Not in `csv`, which an API of an older version reads during an upgrade.
        "numbers": json.dumps(job.csv.numbers) if job.csv and job.csv.numbers else None,
    }
    return {
        "owner": job.owner,
        "model": job.model.name,
        "version": job.model.version,
        "sha256": job.model.sha256,
        "model_key": job.model.ref.key,
        "ttl_ms": job.ttl_s * 1000,
        "metadata": json.dumps(job.metadata or {}),
        "use_cache": int(job.use_cache),
        "parts": int(job.parts),
        **{field: value for field, value in optional.items() if value is not None},
    }


def read_job(job_id: str, meta: Mapping[str, str]) -> Job:
    """Read a job from its fields."""

    def maybe(field: str) -> int | None:
        return int(meta[field]) if field in meta else None

    return Job(
        id=job_id,
        owner=meta["owner"],
        status=JobStatus(meta["status"]),
        model=ModelRef(meta["model"], meta["version"], meta["sha256"]),
        lane=Lane(meta["lane"]),
        counts=Counts(
            total=int(meta["total"]),
            running=int(meta.get("running", 0)),
            succeeded=int(meta["succeeded"]),
            failed=int(meta["failed"]),
            cancelled=int(meta["cancelled"]),
            cached=int(meta.get("cached", 0)),
        ),
        chunk_items=int(meta["chunk_items"]),
        created_ms=int(meta["created_ms"]),
        expires_ms=int(meta["expires_ms"]),
        started_ms=maybe("started_ms"),
        finished_ms=maybe("finished_ms"),
        name=meta.get("name"),
        metadata=json.loads(meta["metadata"]),
        failures={
            field.removeprefix("failure:"): int(count)
            for field, count in meta.items()
            if field.startswith("failure:")
        },
        hosts=read_hosts(meta.get("hosts", "{}")),
        parent_job=meta.get("parent_job"),
        rescore_of=meta.get("rescore_of"),
        error=meta.get("error"),
        csv=_csv_shape(meta) if "csv" in meta else None,
        webhook_url=meta.get("webhook_url"),
        parts=meta.get("parts") == "1",
        thumbnails=int(meta.get("thumbnails", 0)),
        keep_features=meta.get("keep_features") == "1",
    )


def _csv_shape(meta: Mapping[str, str]) -> CsvShape:
    header, url_column, id_column = json.loads(meta["csv"])
    numbers = json.loads(meta.get("numbers", "{}"))
    kinds = {name: NumberKind(kind) for name, kind in numbers.items()}
    return CsvShape(tuple(header), url_column, id_column, kinds)
