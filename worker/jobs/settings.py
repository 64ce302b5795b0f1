"""The configuration of a Piqueue process, read from `PIQUEUE_*` environment variables."""

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.jobs.cpus import cpu_count
from worker.jobs.errors import SettingsInvalid, sentence
from worker.jobs.redis_url import RedisAddress

PREFIX = "PIQUEUE_"
# Read by piqueue.client and scripts.workshop.collecting: an API or a worker ignores them.
CLIENT_VARIABLES = {
    *("PIQUEUE_URL", "PIQUEUE_API_KEY"),
    *("PIQUEUE_OPENVERSE_TOKEN", "PIQUEUE_OPENVERSE_URL"),
    *("PIQUEUE_UNSPLASH_KEY", "PIQUEUE_UNSPLASH_APP", "PIQUEUE_UNSPLASH_URL"),
}
IN_REDIS = "redis"
# A path prefix, or the empty one.
ROOT_PATH = r"(?=.{0,200}$)(/[A-Za-z0-9._~-]+)*"
S3_FOLDER = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<prefix>[^\x00-\x20?#]*?))?/?"
)
# Room for two versions of a ResNet 50: the new one is warm before the old one is evicted.
MODELS_BYTES_A_THREAD = 250_000_000
_WEBHOOK_RETRY_S = (5, 30, 120, 600, 3600, 6 * 3600, 12 * 3600, 86400, 86400)
ARTIFACTS_PATH = Path(__file__).resolve().parents[2] / "model" / "bundled"


def _matching(pattern: str, expected: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must {expected}")
        return value

    return AfterValidator(check)


def _valid_redis_url(url: str) -> str:
    RedisAddress.parse(url)
    return url


_RedisUrl = Annotated[str, AfterValidator(_valid_redis_url)]
_HttpUrl = Annotated[str, _matching(r"https?://.*", "begin with https:// or http://")]
_RootPath = Annotated[
    str,
    _matching(ROOT_PATH, "be like /piqueue, without a slash at its end, of up to 200 characters"),
]
_Origin = Annotated[
    str, _matching(r"https?://[a-z0-9.:\[\]-]+", "be like https://app.example.com, in lower case")
]
_S3Endpoint = Annotated[
    str,
    _matching(
        r"(?i:https?)://(?!:)[^@/?#]+([/?#].*)?",
        "be like https://s3.example.com, without user and password",
    ),
]
_FOLDER = S3_FOLDER.pattern
_StorageUrl = Annotated[
    str,
    _matching(
        rf"{IN_REDIS}|/.*|{_FOLDER}",
        "be redis, the absolute path of a folder, or like s3://bucket/prefix",
    ),
]
_RegistryUrl = Annotated[
    str, _matching(rf"(?!.*://).*|{_FOLDER}", "be the path of a folder, or like s3://bucket/prefix")
]


class Engine(StrEnum):
    """What scores pictures; `auto` chooses by the files of a model and the machine."""

    AUTO = "auto"
    LITERT = "litert"
    ONNX = "onnx"
    TENSORFLOW = "tensorflow"


class ModelVariant(StrEnum):
    """The variant of a model that LiteRT runs; `auto` is the fastest on the worker's processor."""

    AUTO = "auto"
    FLOAT = "float"
    INT8 = "int8"


class Settings(BaseSettings):
    """Every setting, with its unit in its name; `load_settings` reads the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    redis_url: _RedisUrl = "redis://127.0.0.1:6379/0"
    """Redis for the ledger and the queue: redis://, rediss:// (TLS), unix://, or Sentinels as
    redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/0; OPERATIONS.md lists the options"""
    artifacts_path: Path = ARTIFACTS_PATH
    """Folder of models, as <name>/<version>/"""
    default_model: str = "scenes"
    """Model for jobs that do not name one"""
    registry_url: _RegistryUrl | None = None
    """Registry to which `piqueue models` adds models and promotions: a folder or
    s3://bucket/prefix; if unset, PIQUEUE_ARTIFACTS_PATH if that is set"""
    model_url: _HttpUrl | None = None
    """URL of a zipped <version> folder to download when a process starts, such as
    https://example.com/scenes-6.zip"""
    model_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the file at PIQUEUE_MODEL_URL"""
    models_cache_path: Path = Path("~/.cache/piqueue/models")
    """Local folder for copies of models from S3 and PIQUEUE_MODEL_URL, and for the measured speeds
    of model variants"""
    models_memory_bytes: int | None = Field(None, ge=1)
    """Maximum memory for all models of one worker process, all threads together; the least recently
    used models are evicted first. If unset, 250 MB for each thread: a worker with two threads and
    pictures of usual size then fits into 1 GB"""
    model_wait_s: float = Field(60, gt=0)
    """Time after which items are rejected if no worker can load their model"""
    engine: Engine = Engine.AUTO
    """auto, litert, onnx or tensorflow; auto is ONNX Runtime for models that were added as ONNX
    files, and for others TensorFlow if it can use a GPU, otherwise LiteRT"""
    model_variant: ModelVariant = ModelVariant.AUTO
    """auto, float or int8; auto is the fastest variant of each model on the worker's processor,
    which the worker measures once; a model without the named variant runs as float"""
    threads: int = Field(default_factory=cpu_count, ge=1, le=256)
    """Inferences that one worker process runs at a time; the default follows the CPU quota of its
    container"""
    batch_size: int = Field(16, ge=1, le=1024)
    """Pictures in one batch; only engines on a GPU score a batch in one pass, and their batches
    have pictures of several chunks and jobs"""
    batch_wait_s: float = Field(0.005, ge=0, le=10)
    """Time that an engine on a GPU waits for a batch to fill up while it is idle"""
    chunk_items: int = Field(32, ge=1, le=1000)
    """Items in one chunk"""
    lease_s: float = Field(30, gt=0)
    """Duration of the lease of a chunk; if a worker dies, its chunks are retried after this time"""
    bulk_share: float = Field(0.2, gt=0, lt=1)
    """Share of the workers that bulk jobs keep while interactive jobs wait; without bulk jobs,
    interactive ones get all"""
    chunk_deadline_s: float = Field(600, gt=0)
    """Maximum time that a worker works on a chunk; after it, the worker exits and its supervisor
    restarts it"""
    max_items: int = Field(1_000_000, ge=1)
    """Maximum items in a job"""
    max_files: int = Field(1000, ge=1)
    """Maximum files in a multipart request"""
    max_item_bytes: int = Field(25_000_000, ge=1)
    """Maximum size of one picture, uploaded or fetched"""
    max_request_bytes: int = Field(500_000_000, ge=1)
    """Maximum size of one request"""
    max_json_bytes: int = Field(5_000_000, ge=1)
    """Maximum size of one JSON body, which is held in memory"""
    max_connections: int = Field(2000, ge=10)
    """Maximum connections of one API process; one API key can use half of them"""
    request_timeout_s: float = Field(20, gt=0)
    """Time that a client has to send the headers of a request, and then its body; for the body, one
    second is added for each 1,000 bytes that arrive"""
    max_pixels: int = Field(50_000_000, ge=1)
    """Maximum width x height of one picture"""
    decode_memory_bytes: int = Field(512_000_000, ge=200_000_000)
    """Maximum memory for decoding in one worker process, all threads together; a picture that needs
    more is rejected"""
    max_backlog_items: int = Field(5_000_000, ge=1)
    """Maximum waiting items of all jobs; beyond it, new jobs are refused with 503"""
    quota_items: int = Field(2_000_000, ge=1)
    """Maximum waiting items of one API key; beyond it, its new jobs are refused with 429"""
    quota_drafts: int = Field(1000, ge=1)
    """Maximum drafts of one caller; beyond it, new ones are refused with 429"""
    quota_upload_bytes: int = Field(100_000_000_000, ge=1)
    """Maximum size of the stored uploads, thumbnails and kept features of one caller, in drafts and
    jobs; beyond it, more uploads and jobs that keep features are refused with 429, and other new
    jobs get no thumbnails. If there are several API keys, none may store more than what is left"""
    draft_ttl_s: int = Field(86400, ge=60)
    """Time after which a draft that is not submitted expires"""
    draft_idle_s: int = Field(300, ge=1)
    """Time after which a draft that nobody adds to is erased, while Redis or the disk for uploads
    has no room"""
    idempotency_ttl_s: int = Field(86400, ge=60)
    """Time for which an Idempotency-Key is stored"""
    max_thumbnails: int = Field(10_000, ge=0)
    """Maximum thumbnails of a job, of up to 4 KB each; its first pictures get them"""
    job_ttl_s: int = Field(7 * 86400, ge=60)
    """Time after which a job and its results expire"""
    cache_ttl_s: int = Field(86400, ge=1)
    """Time after which cached scores expire"""
    cache_shared: bool = False
    """Share cached scores among API keys, which saves work if they submit the same pictures; a key
    can then see by `cached` that another one submitted a picture"""
    sync_timeout_s: float = Field(30, gt=0)
    """Maximum time that POST /scorefile/ waits for scores"""
    fetch_timeout_s: float = Field(15, gt=0)
    """Deadline for downloading one picture, redirects included"""
    fetch_concurrency: int = Field(64, ge=1)
    """Downloads that one worker process runs at a time"""
    fetch_per_host: int = Field(16, ge=1)
    """Downloads that one worker process runs at a time from one host; at most half of
    PIQUEUE_FETCH_CONCURRENCY, so that a host that hangs does not block the others"""
    fetch_budget_bytes: int = Field(200_000_000, ge=1)
    """Maximum memory for all downloads of one worker process; if it is used up, pictures are
    downloaded one at a time"""
    fetch_allow_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Private networks that workers may connect to for pictures and webhooks, such as 10.0.0.0/8,
    comma separated"""
    storage_url: _StorageUrl = IN_REDIS
    """Storage for uploaded pictures: redis; the absolute path of a folder that the API and all
    workers share, which `piqueue serve` makes in its data folder; or s3://bucket/prefix, which also
    stores results as files"""
    storage_reserve_bytes: int = Field(1_000_000_000, ge=0)
    """Free space that uploads leave on the disk of a folder in PIQUEUE_STORAGE_URL; without more,
    they are refused with 503"""
    s3_endpoint_url: _S3Endpoint | None = None
    """S3 server, such as https://s3.example.com; if unset, Amazon's"""
    s3_region: str | None = None
    """S3 region; if unset, boto3 chooses"""
    s3_path_style: bool | None = None
    """Name the bucket in the path of a request (true) or in its host name (false); if unset, in the
    path when PIQUEUE_S3_ENDPOINT_URL is set"""
    s3_encryption: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption of objects on S3: AES256 or aws:kms"""
    s3_kms_key_id: str | None = None
    """Id of the KMS key for aws:kms"""
    s3_fetch_buckets: Annotated[tuple[str, ...], NoDecode] = ()
    """Buckets from which s3:// items may be read, comma separated"""
    webhook_retry_s: Annotated[tuple[PositiveFloat, ...], NoDecode] = _WEBHOOK_RETRY_S
    """Delays before each further attempt to deliver a webhook, comma separated; each varies
    randomly by up to 20 %"""
    webhook_timeout_s: float = Field(15, gt=0)
    """Maximum time that the receiver of a webhook has to answer"""
    allow_no_keys: bool = False
    """Serve other machines even if no API key exists"""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names by which requests without an API key may address the API, besides localhost and IP
    addresses, comma separated; an API that listens beyond loopback accepts any if this is unset"""
    root_path: _RootPath = ""
    """Path prefix below which a reverse proxy serves the API, such as /piqueue; whether the proxy
    removes it from the path or not"""
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = (
        IPv4Network("127.0.0.1"),
        IPv6Network("::1"),
    )
    """Addresses and networks of reverse proxies whose X-Forwarded-For, X-Forwarded-Proto and
    X-Forwarded-Prefix count, comma separated; empty for none"""
    cors_origins: Annotated[tuple[_Origin, ...], NoDecode] = ()
    """Origins of web pages of other sites that may use the API, such as https://app.example.com,
    comma separated"""
    keep_alive_s: int = Field(75, ge=1)
    """Time for which the API keeps an idle connection open; set it above the idle timeout of a load
    balancer, which is often 60 s"""
    metrics_host: str = "127.0.0.1"
    """Address on which a worker serves its metrics, without authentication"""
    metrics_port: int = Field(0, ge=0, le=65535)
    """Port on which a worker serves its metrics; with 0 it serves none"""
    log_json: bool = True
    """Write logs as JSON lines (true) or as text (false)"""

    @property
    def models_bytes(self) -> int:
        """Return `models_memory_bytes`, or its default for this number of threads."""
        return self.models_memory_bytes or MODELS_BYTES_A_THREAD * self.threads

    @property
    def storage_folder(self) -> Path | None:
        """Return the folder of `storage_url`; None if uploads are in Redis or on S3."""
        return Path(self.storage_url) if self.storage_url.startswith("/") else None

    @property
    def stores_on_s3(self) -> bool:
        """Whether `storage_url` names a bucket."""
        return self.storage_url.startswith("s3:")

    @model_validator(mode="after")
    def _url_and_sha256(self) -> Self:
        if (self.model_url is None) != (self.model_sha256 is None):
            raise ValueError("set PIQUEUE_MODEL_URL and PIQUEUE_MODEL_SHA256, or neither")
        return self

    @model_validator(mode="after")
    def _variant_has_its_engine(self) -> Self:
        if (
            self.engine in (Engine.TENSORFLOW, Engine.ONNX)
            and self.model_variant is ModelVariant.INT8
        ):
            raise ValueError(
                "PIQUEUE_MODEL_VARIANT=int8 needs LiteRT: set PIQUEUE_ENGINE to auto or litert"
            )
        return self

    @field_validator("s3_kms_key_id")
    @classmethod
    def _key_has_a_use(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("s3_encryption") != "aws:kms":
            raise ValueError("set PIQUEUE_S3_ENCRYPTION=aws:kms as well, or unset this")
        return value

    @field_validator(
        *("fetch_allow_networks", "s3_fetch_buckets", "webhook_retry_s", "allowed_hosts"),
        *("trusted_proxies", "cors_origins"),
        mode="before",
    )
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; keyword arguments override it.

    Raises:
        SettingsInvalid: a value is invalid, or a PIQUEUE_ variable is no setting; the text names
            each and says what to change.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | CLIENT_VARIABLES
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise SettingsInvalid("; ".join(_unknown(name, known) for name in unknown))
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsInvalid("; ".join(map(_wrong, error.errors()))) from None


def _unknown(name: str, known: Iterable[str]) -> str:
    """What is said of a variable that is no setting."""
    ends = sorted(one.removeprefix(PREFIX) for one in known)
    near = get_close_matches(name.removeprefix(PREFIX), ends, 1)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else "correct or unset it;"
    return f"unknown setting {name}: {hint} docs/settings.md lists all"


def _wrong(problem: Mapping[str, Any]) -> str:
    """What is said of a value, which may be a secret in the wrong place and is not quoted."""
    name = f"{PREFIX}{problem['loc'][0].upper()}: " if problem["loc"] else ""
    return name + sentence({**problem, "input": None})


def is_loopback(host: str) -> bool:
    """Whether a host name or address is one that other machines cannot reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_boto3() -> None:
    """Raise SettingsInvalid unless boto3 is installed."""
    if find_spec("boto3") is None:
        raise SettingsInvalid("the settings name S3, which needs boto3: install piqueue-server[s3]")
