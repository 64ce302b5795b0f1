"""Options and answers of the API. Answers may carry fields that this version does not know."""

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar

from msgspec import Meta, Struct, field

_T = TypeVar("_T")
Body = Callable[[], Iterable[bytes]]
"""The parts of a request body; called once for each attempt."""
Time = Annotated[datetime, Meta(tz=True)]

DoneStatus = Literal["succeeded", "partially_succeeded", "failed", "cancelled"]
JobStatus = Literal["draft", "queued", "running", "cancelling", DoneStatus]
ItemStatus = Literal["succeeded", "failed"]
Priority = Literal["interactive", "bulk"]
ResultsFormat = Literal["csv", "jsonl", "parquet"]
Stage = Literal["fetch", "decode", "infer"]
_Url = Literal["fetch_dns", "fetch_blocked_address", "fetch_redirects"]
_Fetch = Literal["fetch_timeout", "fetch_connection", "fetch_http_status", "fetch_too_large"]
_Format = Literal["not_an_image", "unsupported_format", "too_many_pixels", "truncated"]
_Scoring = Literal["decode_failed", "model_error", "worker_lost", "internal"]
ErrorCode = Literal[_Url, _Fetch, _Format, _Scoring]


class Columns(TypedDict, total=False):
    """Names of columns of a table: `url_column` is "url" if unset, `id_column` the row's index."""

    url_column: str
    id_column: str


class Filters(TypedDict, total=False):
    """Selects results, and labels within them, when results are read.

    `status` and `label` select items; `top_k` keeps the best scores of each; `threshold` (0 to 1)
    replaces the thresholds of the model; `merge="parents"` adds the results of the jobs that a
    retry was made from. `search` selects by a part of the id, URL or file name, `error` by the code
    of a failure, `above` and `below` by scores: `above=["beach:0.4"]` selects 0.4 and more.
    `include` adds the scores of labels that `top_k` leaves out, in JSON and JSONL; `embeddings`
    adds kept features in Parquet.
    """

    status: ItemStatus
    label: str
    search: str
    error: ErrorCode
    above: list[str]
    below: list[str]
    include: list[str]
    top_k: int
    threshold: float
    embeddings: bool
    merge: Literal["parents"]


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One picture to fetch. `id` is its index if unset; `columns` come back with its result, as
    text."""

    url: str
    id: str | None = None
    columns: Mapping[str, str | float] | None = None


class JobOptions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Options of a job.

    `model` is `name` or `name@version`; `models` names several instead, whose labels are then
    `name/label`; `max_failures` a count or a share such as `"5%"`, beyond
    which the job fails; `expires_in_s` the seconds until the job is erased, 60 or more;
    `use_cache` reuses scores of pictures scored before; `thumbnails` keeps a small WebP of each
    picture; `keep_features` keeps the features of pictures for `embeddings` and `piqueue teach`;
    `webhook_url` receives a Standard Webhooks message when the job is done.
    """

    model: str | None = None
    models: list[str] | None = None
    name: str | None = None
    metadata: dict[str, Any] = {}
    priority: Priority | None = None
    max_failures: int | str | None = None
    expires_in_s: int | None = None
    use_cache: bool = False
    thumbnails: bool = False
    keep_features: bool = False
    webhook_url: str | None = None


class ModelVersion(Struct, frozen=True):
    """The exact model of a job."""

    name: str
    version: str
    sha256: str


class Counts(Struct, frozen=True):
    """Items by state, which add up to `total`. `cached` are the succeeded ones scored before."""

    total: int
    waiting: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    cached: int


class Image(Struct, frozen=True):
    """Facts of a picture; the size is in pixels as displayed."""

    sha256: str
    bytes: int
    format: str | None
    width: int | None
    height: int | None


class Source(Struct, frozen=True):
    """Where a picture came from."""

    type: Literal["url", "upload"]
    url: str | None = None
    filename: str | None = None


class Timings(Struct, frozen=True):
    """Milliseconds in each stage."""

    fetch: int
    decode: int
    infer: int


class ItemError(Struct, frozen=True):
    """Why an item has no scores."""

    code: ErrorCode
    stage: Stage
    retryable: bool
    detail: str


class Result(Struct, frozen=True):
    """One finished item: it has `scores` (0 to 1 by label) or `error`, never both."""

    index: int
    id: str
    status: ItemStatus
    source: Source
    columns: dict[str, str] | None
    image: Image | None
    scores: dict[str, float] | None
    labels: list[str] | None
    cached: bool
    attempts: int
    ms: Timings
    error: ItemError | None
    variant: str | None = None


class JobHost(Struct, frozen=True):
    """Fetches from one host so far. `host` None counts all hosts that are not listed.

    `http_status` counts the answers without a picture by status; `p95_ms` is the 95th percentile of
    the response time.
    """

    host: str | None
    ok: int
    http_status: dict[str, int]
    timeouts: int
    other: int
    p95_ms: int | None


class Links(Struct, frozen=True):
    """Paths of a job."""

    self: str
    results: str
    events: str
    cancel: str


class Job(Struct, frozen=True):
    """A job. `rate_per_s` counts finished items; `failures` counts failed items by error code.
    The first `thumbnails` items have a thumbnail once they are scored. `keep_features` says whether
    it keeps the features of its pictures.

    In a job of several models, `models` are these, and the fields of `model` are joined by "+".
    `rescore_of` is the job whose kept features this one has scored.

    While a job waits to start, `position` 1 starts next, and `starts_in_s` is an estimate at the
    rate of the last minute; otherwise both are None.
    """

    id: str
    status: JobStatus
    done: bool
    name: str | None
    model: ModelVersion
    priority: Priority
    counts: Counts
    rate_per_s: float | None
    eta_s: int | None
    failures: dict[str, int]
    hosts: list[JobHost]
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    expires_at: Time
    metadata: dict[str, Any]
    parent_job: str | None
    error: str | None
    links: Links
    results: list[Result] | None = None
    position: int | None = None
    starts_in_s: int | None = None
    thumbnails: int = 0
    models: list[ModelVersion] | None = None
    keep_features: bool = False
    rescore_of: str | None = None


class Draft(Job, frozen=True, kw_only=True):
    """A draft, and what a request added to it: the count and the first 1,000 ids of the items that
    are new, and of those that the draft had already.
    """

    added_count: int
    added_ids: list[str]
    existing_count: int
    existing_ids: list[str]


class SampledHost(Struct, frozen=True):
    """What a dry run saw of one host; `failures` counts by error code."""

    host: str
    sampled: int
    failures: dict[str, int]


class DryRun(Struct, frozen=True):
    """What a submission would become. `sampled` URLs were fetched and scored."""

    items: int
    model: ModelVersion
    sampled: int
    hosts: list[SampledHost]
    eta_s: int | None
    dry_run: bool = True


class Variant(Struct, frozen=True):
    """A variant of a model, `float` or `int8`, that `workers` run, and its CPU time a picture."""

    variant: str
    workers: int
    picture_ms: float | None


class Model(Struct, frozen=True):
    """A model that jobs may name. `top_k` is how many scores a result has; None: all of them.
    `activation` is "sigmoid" for any number of labels per picture, or "softmax" for one.

    In a job, models with the same `backbone`, the SHA-256 of a network, share its work.
    """

    name: str
    version: str
    sha256: str
    labels: list[str]
    thresholds: dict[str, float]
    top_k: int | None
    created: date
    default: bool
    current: bool
    warm_workers: int
    unable_workers: int
    variants: list[Variant] = []
    backbone: str | None = None
    activation: str = ""


class Similar(Struct, frozen=True):
    """A picture that is similar to another one; `similarity` is 1 for the same picture."""

    index: int
    id: str
    source: Source
    similarity: float


class Member(Struct, frozen=True):
    """A picture in a group of near-duplicates."""

    index: int
    id: str
    source: Source


class DuplicateGroup(Struct, frozen=True):
    """Pictures that are nearly the same: how many, and the first 100 of them."""

    count: int
    items: list[Member]


class Limits(Struct, frozen=True):
    """What one request, one job and one caller may send.

    `quota_items` is None without API keys, `upload_room_bytes` if it is unknown.
    """

    max_items: int
    max_files: int
    max_item_bytes: int
    max_request_bytes: int
    max_json_bytes: int
    max_pixels: int
    job_ttl_s: int
    s3_fetch_buckets: list[str]
    quota_items: int | None
    waiting_items: int
    quota_drafts: int
    quota_upload_bytes: int
    upload_bytes: int
    draft_idle_s: int
    upload_room_bytes: int | None
    results_formats: list[Literal["json", ResultsFormat]]
    max_thumbnails: int
    rate_per_s: float
    keeps_features: bool
    reads_heic: bool


class Problem(Struct, frozen=True):
    """An error answer, RFC 9457. `problems` are the first 100 of `problem_count` refused items.

    `added_count` and the next three fields are those of `Draft`, if items were sent to a draft.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None
    problem_count: int | None = None
    problems: list[dict[str, Any]] | None = None
    added_count: int | None = None
    added_ids: list[str] | None = None
    existing_count: int | None = None
    existing_ids: list[str] | None = None


class DraftItem(Struct, frozen=True):
    """An item of a draft."""

    id: str


class Page(Struct, Generic[_T], frozen=True, kw_only=True):
    """Part of a list; the last page has no `next_cursor`."""

    items: list[_T]
    next_cursor: str | None = None


class JobsPage(Page[Job], frozen=True, kw_only=True):
    """Jobs, newest first."""

    items: list[Job] = field(name="jobs")


class ResultsPage(Page[Result], frozen=True, kw_only=True):
    """Finished items in index order."""


class DuplicatesPage(Page[DuplicateGroup], frozen=True, kw_only=True):
    """Groups of near-duplicates, the largest first, and their counts in the whole job.

    `duplicate_count` are the pictures in groups, without one of each.
    """

    items: list[DuplicateGroup] = field(name="groups")
    compared: int
    group_count: int
    duplicate_count: int


class DraftItemsPage(Page[DraftItem], frozen=True, kw_only=True):
    """Items of a draft in the order in which they were added."""
