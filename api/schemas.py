"""The bodies of requests and answers, as pydantic models; the OpenAPI text is made of them."""

import math
import re
from datetime import UTC, date, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from api.urls import url_problem
from worker.jobs.host_statistics import HostTally, heaviest_hosts
from worker.jobs.items import RejectionCode, Stage
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.record import JOB_ERRORS, Job, JobStatus, Lane, utc

LISTED_HOSTS = 20
_SHARE = re.compile(r"(100|[0-9]{1,2})(\.[0-9]{1,3})?%")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobOptions(_Body):
    """What a client may say of a job besides its items."""

    model: str | None = Field(None, description="`name` or `name@version`", examples=["scenes"])
    name: str | None = Field(None, max_length=200)
    metadata: dict[str, JsonValue] = Field({}, description="Given back as it is")
    priority: Lane | None = Field(None, description="By size if unset")
    max_failures: int | str | None = Field(
        None, description="The job fails when more items than this do: a count, or a share as `5%`"
    )
    expires_in_s: int | None = Field(None, ge=60, le=90 * 86400)
    use_cache: bool = Field(False, description="Take and keep scores of pictures seen before")
    dry_run: bool = Field(False, description="Only check, try up to 50 URLs and estimate the time")
    webhook_url: str | None = Field(
        None,
        description="Told when the job is done, as Standard Webhooks has it",
        examples=["https://example.com/piqueue"],
    )

    @field_validator("webhook_url")
    @classmethod
    def _fit_to_post_to(cls, value: str | None) -> str | None:
        if value is not None and (problem := url_problem(value)):
            raise ValueError(problem)
        return value

    @field_validator("max_failures")
    @classmethod
    def _count_or_share(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if value is None or (isinstance(value, int) and value >= 0):
            return value
        if isinstance(value, str) and _SHARE.fullmatch(value):
            return value
        raise ValueError("give a count from 0 up, or a share from 0% to 100%")

    @property
    def given(self) -> dict[str, Any]:
        """Give as JSON what differs from the defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def budget(self, total: int) -> int | None:
        """Give the most items of `total` that may fail."""
        if isinstance(self.max_failures, str):
            return math.floor(total * float(self.max_failures.rstrip("%")) / 100)
        return self.max_failures


class ItemIn(_Body):
    """One picture to be fetched."""

    url: str
    id: str | None = Field(None, min_length=1, max_length=1024, description="Its index if unset")
    columns: dict[str, str] | None = Field(None, description="Given back with its result")


class JobIn(JobOptions):
    """A job of URLs, as `urls` or `items`, or a draft of one, which takes its items later."""

    urls: list[str] | None = Field(None, examples=[["https://example.com/beach.jpg"]])
    items: list[ItemIn] | None = None
    draft: bool = False

    @property
    def options(self) -> JobOptions:
        """The options alone."""
        return JobOptions.model_validate(self.model_dump(include=set(JobOptions.model_fields)))


class Problem(BaseModel):
    """An error, as RFC 9457 has it; `code` is for programs."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = Field(None, description="As in the logs and in X-Request-ID")
    problem_count: int | None = Field(None, description="Refused items, listed or not")
    problems: list[dict[str, Any]] | None = Field(None, description="The first 100 refused items")


class ModelOut(BaseModel):
    """The exact model of a job."""

    name: str
    version: str
    sha256: str


class CountsOut(BaseModel):
    """Items by state; all but `cached` add up to `total`."""

    total: int
    waiting: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    cached: int = Field(description="Of the succeeded ones, those scored before")


class ImageOut(BaseModel):
    """What is known of a picture; the size as a person sees it, in pixels."""

    sha256: str
    bytes: int
    format: str | None
    width: int | None
    height: int | None


class SourceOut(BaseModel):
    """Where a picture came from."""

    type: Literal["url", "upload"]
    url: str | None = None
    filename: str | None = None


class TimingsOut(BaseModel):
    """Milliseconds in each stage."""

    fetch: int
    decode: int
    infer: int


class ErrorOut(BaseModel):
    """Why an item has no scores."""

    code: RejectionCode
    stage: Stage
    retryable: bool
    detail: str


class ResultOut(BaseModel):
    """One finished item: `scores` or `error`, never both."""

    index: int
    id: str
    status: Literal["succeeded", "failed"]
    source: SourceOut
    columns: dict[str, str] | None
    image: ImageOut | None
    scores: dict[str, float] | None
    labels: list[str] | None
    cached: bool
    attempts: int
    ms: TimingsOut
    error: ErrorOut | None

    @classmethod
    def of(
        cls, stored: StoredResult, scores: dict[str, float] | None, labels: list[str] | None
    ) -> Self:
        """Show a stored result with these of its scores and labels."""
        result, spec = stored.result, stored.spec
        return cls(
            index=stored.index,
            id=spec.id,
            status="failed" if result.rejection else "succeeded",
            source=SourceOut(type="upload", filename=spec.filename)
            if spec.url is None
            else SourceOut(type="url", url=spec.url),
            columns=spec.columns,
            image=result.image
            and ImageOut(
                sha256=result.image.sha256,
                bytes=result.image.byte_count,
                format=result.image.format,
                width=result.image.width,
                height=result.image.height,
            ),
            scores=scores,
            labels=labels,
            cached=result.cached,
            attempts=stored.attempts,
            ms=TimingsOut(
                fetch=result.timings.fetch_ms,
                decode=result.timings.decode_ms,
                infer=result.timings.infer_ms,
            ),
            error=result.rejection
            and ErrorOut(
                code=result.rejection.code,
                stage=result.rejection.stage,
                retryable=result.rejection.retryable,
                detail=result.rejection.detail,
            ),
        )


class RetryIn(_Body):
    """Which items of a job are tried again: all that failed, or those that may go better now."""

    only: Literal["failed", "retryable"] = "failed"


class ResultsPage(BaseModel):
    """Finished items in index order; while the job runs, those not yet done are left out."""

    items: list[ResultOut]
    next_cursor: str | None = Field(None, description="Absent on the last page")


class LinksOut(BaseModel):
    """Where to go from a job."""

    self: str
    results: str
    events: str
    cancel: str


class JobHostOut(BaseModel):
    """How the URLs of one host fared so far; redirects are counted where they began."""

    host: str | None = Field(description="Null for all hosts that are not listed, together")
    ok: int = Field(description="Fetched, whether or not there was a picture in it")
    http_status: dict[str, int] = Field(description="Answers that gave nothing, by status")
    timeouts: int
    other: int = Field(description="Failed otherwise: name, connection, address, size, redirects")
    p95_ms: int | None = Field(
        description="95 of 100 answers took at most about this long; null if none came"
    )

    @classmethod
    def of(cls, tally: HostTally) -> Self:
        """Show a host's counts."""
        return cls(
            host=tally.name,
            ok=tally.ok,
            http_status=tally.http_status,
            timeouts=tally.timeouts,
            other=tally.other,
            p95_ms=tally.p95_ms,
        )


class JobOut(BaseModel):
    """A job as it stands."""

    id: str
    status: JobStatus
    done: bool
    name: str | None
    model: ModelOut
    priority: Lane
    counts: CountsOut
    rate_per_s: float | None = Field(description="Finished items a second since it started")
    eta_s: int | None
    failures: dict[str, int] = Field(description="Failed items by error code")
    hosts: list[JobHostOut] = Field(
        description="Where its URLs lead: the 20 busiest hosts, a failure counting as ten answers, "
        "those with most failures first"
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime
    metadata: dict[str, JsonValue]
    parent_job: str | None
    error: str | None = Field(description="Why the job as a whole failed")
    links: LinksOut
    results: list[ResultOut] | None = Field(
        None, description="The first 100 results, once the job is done"
    )

    @classmethod
    def of(cls, job: Job, results: list[ResultOut] | None = None) -> Self:
        """Show a job, with the rate it runs at and when it will be done at that rate."""
        counts = job.counts
        rate = eta = None
        if job.started_ms is not None:
            until_ms = job.finished_ms or datetime.now(UTC).timestamp() * 1000
            elapsed_s = max(until_ms - job.started_ms, 1) / 1000
            rate = round(counts.finished / elapsed_s, 1)
            if rate and not job.status.done:
                eta = round((counts.waiting + counts.running) / rate)
        path = f"/jobs/{job.id}"
        return cls(
            id=job.id,
            status=job.status,
            done=job.status.done,
            name=job.name,
            model=ModelOut(name=job.model.name, version=job.model.version, sha256=job.model.sha256),
            priority=job.lane,
            counts=CountsOut(
                total=counts.total,
                waiting=counts.waiting,
                running=counts.running,
                succeeded=counts.succeeded,
                failed=counts.failed,
                cancelled=counts.cancelled,
                cached=counts.cached,
            ),
            rate_per_s=rate,
            eta_s=eta,
            failures=job.failures,
            hosts=[JobHostOut.of(tally) for tally in heaviest_hosts(job.hosts, LISTED_HOSTS)],
            created_at=utc(job.created_ms),
            started_at=job.started_ms and utc(job.started_ms),
            finished_at=job.finished_ms and utc(job.finished_ms),
            expires_at=utc(job.expires_ms),
            metadata=job.metadata,
            parent_job=job.parent_job,
            error=job.error and JOB_ERRORS[job.error],
            links=LinksOut(
                self=path,
                results=f"{path}/results",
                events=f"{path}/events",
                cancel=f"{path}/cancel",
            ),
            results=results,
        )


class HostOut(BaseModel):
    """How the sampled URLs of one host fared."""

    host: str
    sampled: int
    failures: dict[str, int] = Field(description="By error code")


class DryRunOut(BaseModel):
    """What a submission would come to; nothing of it is kept."""

    dry_run: Literal[True] = True
    items: int
    model: ModelOut
    sampled: int = Field(description="URLs that were fetched and scored to see how they fare")
    hosts: list[HostOut] = Field(description="Those with failures first")
    eta_s: int | None = Field(description="At the rate of late; null while nothing was scored yet")


class JobsPage(BaseModel):
    """A caller's jobs, newest first."""

    jobs: list[JobOut]
    next_cursor: str | None = Field(description="Null on the last page")


class DraftItemOut(BaseModel):
    """An item that a draft has."""

    id: str


class DraftItemsPage(BaseModel):
    """The items of a draft, in the order they came."""

    items: list[DraftItemOut]
    next_cursor: str | None = Field(description="Null on the last page")


class ModelCardOut(BaseModel):
    """A model that jobs may name, as `name` or `name@version`."""

    name: str
    version: str
    sha256: str
    labels: list[str]
    thresholds: dict[str, float]
    top_k: int | None = Field(
        description="How many scores answer for a picture, best first; null: all of them"
    )
    created: date
    default: bool = Field(description="Whether jobs that name no model get it")
    current: bool = Field(description="Whether `name` without a version stands for it")
    warm_workers: int = Field(description="Live workers that have it loaded")
    unable_workers: int = Field(description="Live workers that could not load it")


class LimitsOut(BaseModel):
    """What one request, one job and one caller may amount to."""

    max_items: int
    max_files: int
    max_item_bytes: int
    max_request_bytes: int
    max_json_bytes: int
    max_pixels: int
    job_ttl_s: int
    s3_fetch_buckets: list[str] = Field(description="Where s3:// items may come from")
    quota_items: int | None = Field(description="Items you may have waiting; null without keys")
    waiting_items: int = Field(description="Items you have waiting")
    rate_per_s: float = Field(description="Items finished a second of late, everyone's together")


class Health(BaseModel):
    """That the process runs, or that it could score a picture now."""

    status: Literal["ok", "ready"]
    workers: int | None = None
    warm: int | None = Field(None, description="Workers that have the default model loaded")
