"""The bodies of requests and responses as pydantic models, which also describe them in OpenAPI."""

import json
import math
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from api.formats import Format
from api.urls import own_path, url_problem
from worker.jobs.errors import DraftChange
from worker.jobs.host_statistics import heaviest_hosts
from worker.jobs.items import MAX_ID_CHARS
from worker.jobs.ledger.load import QueuePosition
from worker.jobs.record import JOB_ERRORS, Job, JobStatus, Lane
from worker.jobs.results import Out, ResultOut, SourceOut

LISTED_HOSTS = 20
MAX_METADATA_BYTES = 16_384
MAX_MODEL_CHARS = 200
_ModelName = Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARS)]
# Models of one job.
MAX_MODELS = 16
_COUNT = re.compile(r"[0-9]{1,15}")
_SHARE = re.compile(r"(100(\.0{1,3})?|[0-9]{1,2}(\.[0-9]{1,3})?)%")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobOptions(_Body):
    """The options of a job."""

    model: _ModelName | None = Field(
        None,
        description="`name` or `name@version`",
        examples=["scenes"],
    )
    models: list[_ModelName] | None = Field(
        None,
        min_length=1,
        max_length=MAX_MODELS,
        description="Several models instead of `model`: each picture is fetched and decoded once. "
        "The labels of the results are then `name/label`. In a query, the names are separated by "
        "commas",
    )
    name: str | None = Field(None, max_length=200)
    metadata: dict[str, JsonValue] = Field(
        {}, description="Any JSON of up to 16 KB; returned unchanged"
    )
    priority: Lane | None = Field(None, description="Default: `interactive` for up to 64 items")
    max_failures: int | str | None = Field(
        None,
        description="If more items fail, the job fails: a count, or a share such as `5%`",
    )
    expires_in_s: int | None = Field(None, ge=60, le=90 * 86400)
    use_cache: bool = Field(
        False,
        description="Reuse scores of pictures that the model has scored for you before, and keep "
        "these",
    )
    thumbnails: bool = Field(
        False,
        description="Keep a small WebP of each picture, for people to look at: of the first "
        "`max_thumbnails` of `GET /limits`, and not of those whose scores come from the cache",
    )
    keep_features: bool = Field(
        False,
        description="Keep the features that the model's backbone gives for each picture, for "
        "`embeddings` and `piqueue teach`, until the job expires",
    )
    dry_run: bool = Field(
        False, description="Only check the items, try up to 50 URLs, and estimate the time"
    )
    webhook_url: str | None = Field(
        None,
        description="Receives a signed request (Standard Webhooks) when the job is done",
        examples=["https://example.com/piqueue"],
    )

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _names_models_once(self) -> Self:
        if self.model is not None and self.models is not None:
            raise ValueError("has both model and models: name all models in models")
        return self

    @property
    def reference(self) -> str | None:
        """The models as the catalog finds them; None for the default model."""
        return self.model if self.models is None else "+".join(self.models)

    @field_validator("metadata")
    @classmethod
    def _is_small(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        try:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        except ValueError:
            raise ValueError(
                "has NaN or an infinite number, which JSON does not have: use null"
            ) from None
        if (size := len(text.encode())) > MAX_METADATA_BYTES:
            raise ValueError(
                f"has {size} bytes as JSON, and the limit is {MAX_METADATA_BYTES}: shorten it"
            )
        return value

    @field_validator("webhook_url")
    @classmethod
    def _is_valid_url(cls, value: str | None) -> str | None:
        if value is not None and (problem := url_problem(value)):
            raise ValueError(problem)
        return value

    # Before pydantic tries each type and describes the value once for each.
    @field_validator("max_failures", mode="before")
    @classmethod
    def _count_or_share(cls, value: Any) -> int | str | None:
        if value is None:
            return None
        # JSON has one type of numbers: 3.0 is 3.
        text = value if isinstance(value, str) else json.dumps(value).removesuffix(".0")
        if _COUNT.fullmatch(text):
            return int(text)
        if _SHARE.fullmatch(text):
            return text
        raise ValueError(
            "must be a whole number of up to 15 digits, or a percentage from 0% to 100% such as "
            '"5%"'
        )

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from the defaults, as JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def budget(self, total: int) -> int | None:
        """How many of `total` items may fail; None for any number."""
        if isinstance(self.max_failures, str):
            return math.floor(total * Decimal(self.max_failures.rstrip("%")) / 100)
        return self.max_failures


def _as_text(cell: Any) -> Any:
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return cell
    try:
        return json.dumps(cell, allow_nan=False)
    except ValueError:
        raise ValueError(
            "is NaN or an infinite number, which JSON does not have: leave it out, or send it as "
            "text"
        ) from None


# A number becomes text, as the cells of a CSV file are.
Cell = Annotated[
    str,
    BeforeValidator(_as_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]}),
]


class ItemIn(_Body):
    """A picture to fetch."""

    url: str
    id: str | None = Field(
        None, min_length=1, max_length=MAX_ID_CHARS, description="Default: its index"
    )
    columns: dict[str, Cell] | None = Field(
        None, description="Returned with its result, as text; up to 16,384 characters in all"
    )


class JobIn(JobOptions):
    """A job of URLs, as `urls` or `items`, or a draft, to which items are added later."""

    urls: list[str] | None = Field(None, examples=[["https://example.com/beach.jpg"]])
    items: list[ItemIn] | None = None
    draft: bool = False

    @model_validator(mode="after")
    def _is_draft_or_dry_run(self) -> Self:
        if self.draft and self.dry_run:
            raise ValueError("has both draft and dry_run: leave one of them out")
        return self

    @property
    def options(self) -> JobOptions:
        """The options without the items."""
        return JobOptions.model_validate(self.model_dump(include=set(JobOptions.model_fields)))


class Problem(BaseModel):
    """An error, as RFC 9457 specifies; programs should use `code`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = Field(
        None, description="Also in the logs, and in the header X-Request-ID"
    )
    problem_count: int | None = Field(None, description="The number of refused items")
    problems: list[dict[str, Any]] | None = Field(None, description="The first 100 refused items")
    added_count: int | None = Field(None, description="Items that were added nevertheless")
    added_ids: list[str] | None = Field(None, description="The first 1,000 of their ids")
    existing_count: int | None = Field(None, description="Items that the draft had already")
    existing_ids: list[str] | None = Field(None, description="The first 1,000 of their ids")


class ModelOut(Out):
    """The model version that scores a job."""

    name: str
    version: str
    sha256: str


class CountsOut(Out):
    """Items by state; they add up to `total`, without `cached`."""

    total: int
    waiting: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    cached: int = Field(description="Succeeded items whose scores came from the cache")


class RetryIn(_Body):
    """Which items to retry: all that failed, or only those that may succeed at another time."""

    only: Literal["failed", "retryable"] = "failed"


class RescoreIn(_Body):
    """The model, or the models, that score the kept features of a job."""

    model: _ModelName | None = None
    models: list[_ModelName] | None = Field(None, min_length=1, max_length=MAX_MODELS)
    name: str | None = Field(None, max_length=200, description="Default: that of the job")

    @model_validator(mode="after")
    def _names_models_once(self) -> Self:
        if (self.model is None) == (self.models is None):
            raise ValueError("give either model or models")
        return self


class ResultsPage(BaseModel):
    """Finished items in index order; unfinished items are not included."""

    items: list[ResultOut]
    next_cursor: str | None = Field(None, description="Absent on the last page")


class SimilarOut(BaseModel):
    """A picture that is similar to another one, or nearly the same."""

    index: int
    id: str
    source: SourceOut
    similarity: float = Field(
        description="Cosine of the features of both, to 0.01: 1 for the same picture"
    )


class GroupMemberOut(BaseModel):
    """A picture in a group of near-duplicates."""

    index: int
    id: str
    source: SourceOut


class GroupOut(BaseModel):
    """Pictures that are nearly the same: the same file, or encoded again, resized or cropped."""

    count: int
    items: list[GroupMemberOut] = Field(description="The first 100 of them, by index")


class DuplicatesPage(BaseModel):
    """Groups of near-duplicates, the largest first."""

    compared: int = Field(description="Pictures of the job that were compared")
    group_count: int
    duplicate_count: int = Field(description="Pictures in groups, without one of each")
    groups: list[GroupOut]
    next_cursor: str | None = Field(None, description="Null on the last page")


class LinksOut(BaseModel):
    """Related paths."""

    self: str
    results: str
    events: str
    cancel: str


class JobHostOut(Out):
    """The fetches from one host so far; a redirect counts for the host where it began."""

    host: str | None = Field(
        validation_alias="name",
        description="Null for the sum of all hosts that are not listed",
    )
    ok: int = Field(description="Successful fetches, whether or not the body was a picture")
    http_status: dict[str, int] = Field(description="Error responses by status")
    timeouts: int
    other: int = Field(
        description="Other failures: DNS, connection, blocked address, size, redirects"
    )
    p95_ms: int | None = Field(
        description="The approximate 95th percentile of the response time; null without a response"
    )


class JobOut(Out):
    """A job: its state, counts and progress."""

    id: str
    status: JobStatus
    done: bool
    name: str | None
    model: ModelOut = Field(description="Of several models, each field is joined by `+`")
    models: list[ModelOut] | None = Field(
        None, description="The models of a job of several; null for one"
    )
    priority: Lane = Field(validation_alias="lane")
    counts: CountsOut
    rate_per_s: float | None = Field(description="Finished items a second since the start")
    eta_s: int | None
    position: int | None = Field(
        None, description="Of a job that waits to start: 1 starts next. An estimate"
    )
    starts_in_s: int | None = Field(
        None,
        description="Of a job that waits to start, at the rate of the last minute; null if nothing "
        "was scored in it",
    )
    failures: dict[str, int] = Field(description="Failed items by error code")
    hosts: list[JobHostOut] = Field(
        description="The 20 busiest hosts, where a failure counts as ten fetches; those with "
        "most failures first"
    )
    created_at: datetime = Field(validation_alias="created_ms")
    started_at: datetime | None = Field(validation_alias="started_ms")
    finished_at: datetime | None = Field(validation_alias="finished_ms")
    expires_at: datetime = Field(validation_alias="expires_ms")
    metadata: dict[str, JsonValue]
    parent_job: str | None
    thumbnails: int = Field(
        0, description="How many items, the first of the job, have a thumbnail once scored"
    )
    keep_features: bool = Field(False, description="Whether it keeps features of its pictures")
    rescore_of: str | None = Field(
        None, description="The job whose kept features this one has scored"
    )
    error: str | None = Field(description="Why the whole job failed")
    links: LinksOut
    results: list[ResultOut] | None = Field(
        None, description="The first 100 results, once the job is done"
    )

    @classmethod
    def of(
        cls, job: Job, results: list[ResultOut] | None = None, place: QueuePosition | None = None
    ) -> Self:
        """Convert a job, with its rate and the time that the rest takes at that rate."""
        counts = job.counts
        rate = eta = None
        if job.started_ms is not None:
            until_ms = job.finished_ms or datetime.now(UTC).timestamp() * 1000
            elapsed_s = max(until_ms - job.started_ms, 1) / 1000
            rate = round(counts.finished / elapsed_s, 1)
            if rate and not job.status.done:
                eta = round((counts.waiting + counts.running) / rate)
        path = own_path(f"/jobs/{job.id}")
        links = {"self": path} | {
            name: f"{path}/{name}" for name in ("results", "events", "cancel")
        }
        derived = {
            "done": job.status.done,
            "models": job.model.several,
            "rate_per_s": rate,
            "eta_s": eta,
            "position": place and place.position,
            "starts_in_s": None if place is None or place.start_s is None else round(place.start_s),
            "hosts": heaviest_hosts(job.hosts, LISTED_HOSTS),
            "error": job.error and JOB_ERRORS[job.error],
            "links": links,
            "results": results,
        }
        return cls.model_validate(vars(job) | derived)


class DraftOut(JobOut):
    """A draft, and what a request added to it."""

    added_count: int = Field(description="Items that are new")
    added_ids: list[str] = Field(
        description="The first 1,000 of their ids; an item without one gets the next free number"
    )
    existing_count: int = Field(description="Items that the draft had already")
    existing_ids: list[str] = Field(description="The first 1,000 of their ids")

    @classmethod
    def of_change(cls, job: Job, change: DraftChange) -> Self:
        """Convert a draft, with what a request added to it."""
        return cls.model_validate(vars(JobOut.of(job)) | vars(change))


class HostOut(BaseModel):
    """The sampled URLs of one host."""

    host: str
    sampled: int
    failures: dict[str, int] = Field(description="By error code")


class DryRunOut(BaseModel):
    """What a submission would do; nothing of it is stored."""

    dry_run: Literal[True] = True
    items: int
    model: ModelOut
    sampled: int = Field(description="URLs that were fetched and scored as a sample")
    hosts: list[HostOut] = Field(description="Those with failures first")
    eta_s: int | None = Field(
        description="At the rate of the sample without its first pictures, which may wait for the "
        "model, or of the last minute if that is higher; null if nothing was scored"
    )


class JobsPage(BaseModel):
    """A caller's jobs, newest first."""

    jobs: list[JobOut]
    next_cursor: str | None = Field(description="Null on the last page")


class DraftItemOut(BaseModel):
    """An item of a draft."""

    id: str


class DraftItemsPage(BaseModel):
    """The items of a draft, in the order they were added."""

    items: list[DraftItemOut]
    next_cursor: str | None = Field(description="Null on the last page")


class VariantOut(BaseModel):
    """A variant of a model that workers run."""

    variant: str = Field(description="float or int8")
    workers: int = Field(description="Live workers that run it")
    picture_ms: float | None = Field(
        description="CPU milliseconds a picture, as their processors were measured: the median; "
        "null if not measured"
    )


class ModelCardOut(BaseModel):
    """A model that jobs can use, as `name` or `name@version`."""

    name: str
    version: str
    sha256: str
    labels: list[str]
    thresholds: dict[str, float]
    top_k: int | None = Field(
        description="How many scores a result has by default, highest first; null for all"
    )
    created: date
    default: bool = Field(description="Whether jobs that name no model use it")
    current: bool = Field(description="Whether `name` without a version means this version")
    backbone: str | None = Field(
        None,
        description="SHA-256 of the network that gives its features. In a job, models with the "
        "same backbone share its work; null if the model is one network",
    )
    activation: str = Field(
        "", description="`sigmoid`: any number of labels per picture; `softmax`: one"
    )
    warm_workers: int = Field(description="Live workers that have it loaded")
    unable_workers: int = Field(description="Live workers that could not load it")
    variants: list[VariantOut] = Field([], description="What the workers with it loaded run")


class ModelDetailsOut(ModelCardOut):
    """A model with all that its card says: how good it is, and what it was made from."""

    input_size: tuple[int, int] | None = Field(description="Height and width in pixels")
    metrics: dict[str, JsonValue] = Field(
        description="Figures by the pictures that they were measured on: `validation`, or "
        "`out_of_fold`, each picture by a model that did not see it"
    )
    sources: list[dict[str, JsonValue]] = Field(
        description="Pictures and weights that it was made from: `name` and `terms` of each"
    )
    notes: str


class LimitsOut(BaseModel):
    """The limits of a request, of a job and of a caller."""

    max_items: int
    max_files: int
    max_item_bytes: int
    max_request_bytes: int
    max_json_bytes: int
    max_pixels: int
    job_ttl_s: int
    s3_fetch_buckets: list[str] = Field(description="Buckets that s3:// items may name")
    quota_items: int | None = Field(
        description="How many items you may have waiting; null without API keys"
    )
    waiting_items: int = Field(description="Items you have waiting")
    quota_drafts: int = Field(description="How many drafts you may have")
    quota_upload_bytes: int = Field(
        description="Size that all your stored uploads, thumbnails and kept features may have, in "
        "drafts and jobs"
    )
    upload_bytes: int = Field(
        description="Size of your stored uploads, thumbnails and kept features; uploads that have "
        "scores are deleted"
    )
    draft_idle_s: int = Field(
        description="A draft that nobody adds to for this time is erased while there is no room"
    )
    upload_room_bytes: int | None = Field(
        description="Size of the pictures that can be uploaded before more are refused; null if it "
        "is unknown"
    )
    results_formats: list[Format] = Field(description="Formats in which results can be read")
    max_thumbnails: int = Field(
        description="Maximum thumbnails of a job, of up to 4,096 bytes each; its first pictures "
        "get them"
    )
    keeps_features: bool = Field(
        description="Whether jobs can have the option `keep_features`, of models with a backbone"
    )
    reads_heic: bool = Field(
        description="Whether all workers can decode HEIC pictures; true if no worker runs"
    )
    rate_per_s: float = Field(description="Recently finished items a second, of all callers")


class Health(BaseModel):
    """`ok` if this process runs, `ready` if a picture could be scored now."""

    status: Literal["ok", "ready"]
    workers: int | None = None
    warm: int | None = Field(None, description="Workers that have the default model loaded")
    variants: list[VariantOut] | None = Field(
        None, description="What those workers run of the default model"
    )
    warnings: list[str] | None = Field(
        None, description="How the configuration of Redis can lose jobs"
    )
