"""The one configuration of a Piqueue process, read from `PIQUEUE_*` environment variables."""

import os
import re
from enum import StrEnum
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.jobs.errors import SettingsInvalid

PREFIX = "PIQUEUE_"
# Read by piqueue.client and scripts.workshop.collecting.unsplash: an API or a worker ignores them.
CLIENT_VARIABLES = {
    *("PIQUEUE_URL", "PIQUEUE_API_KEY"),
    *("PIQUEUE_UNSPLASH_KEY", "PIQUEUE_UNSPLASH_APP", "PIQUEUE_UNSPLASH_URL"),
}
IN_REDIS = "redis"
S3_FOLDER = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<prefix>[^\x00-\x20?#]*?))?/?"
)
# Room for two versions of a ResNet 50, so that one is warm before the other goes.
MODELS_BYTES_A_THREAD = 250_000_000
ARTIFACTS_PATH = Path(__file__).resolve().parents[2] / "model" / "bundled"


class Engine(StrEnum):
    """What scores the pictures: `auto` takes TensorFlow where it sees a GPU, else LiteRT."""

    AUTO = "auto"
    LITERT = "litert"
    TENSORFLOW = "tensorflow"


class Settings(BaseSettings):
    """Every setting, with its unit in its name; `load_settings` makes one from the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Where the ledger and the queue live: redis://, rediss:// or unix://",
    )
    artifacts_path: Path = Field(ARTIFACTS_PATH, description="Folder of models, <name>/<version>/")
    default_model: str = Field("scenes", description="The model of a job that names none")
    registry_url: str | None = Field(
        None,
        description="Where `piqueue models` keeps what is added and promoted: a folder, or "
        "s3://bucket/prefix; the folder of models if unset",
    )
    model_url: str | None = Field(
        None, description="A model to download at the start: a zipped <version> folder, https://…"
    )
    model_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="The SHA-256 of what PIQUEUE_MODEL_URL gives"
    )
    models_cache_path: Path = Field(
        Path("~/.cache/piqueue/models"),
        description="Where models from S3 and PIQUEUE_MODEL_URL are kept on this machine",
    )
    models_memory_bytes: int | None = Field(
        None,
        ge=1,
        description="Memory the models of one worker process take together, all its threads "
        "counted; those used longest ago make room for another. 250 MB a thread if unset: with two "
        "threads a worker fits into 1 GB beside pictures of usual size",
    )
    model_wait_s: float = Field(
        60,
        gt=0,
        description="Items of a model that no live worker can load are rejected after this long",
    )
    engine: Engine = Field(Engine.AUTO, description="auto, litert or tensorflow")
    threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=256,
        description="Inferences one worker process runs at a time",
    )
    batch_size: int = Field(16, ge=1, le=1024, description="Pictures in one forward pass")
    chunk_items: int = Field(32, ge=1, le=1000, description="Items one message stands for")
    lease_s: float = Field(
        30, gt=0, description="A chunk is tried again this long after its worker fell silent"
    )
    chunk_deadline_s: float = Field(
        600, gt=0, description="A worker with a chunk older than this ends itself to be restarted"
    )
    max_items: int = Field(1_000_000, ge=1, description="Items a job may hold")
    max_files: int = Field(1000, ge=1, description="Files a multipart request may hold")
    max_item_bytes: int = Field(
        25_000_000, ge=1, description="Size of one picture, uploaded or fetched"
    )
    max_request_bytes: int = Field(500_000_000, ge=1, description="Size of one request")
    max_json_bytes: int = Field(
        50_000_000, ge=1, description="Size of one JSON body, which is held in memory"
    )
    max_pixels: int = Field(50_000_000, ge=1, description="Width x height of one picture")
    decode_memory_bytes: int = Field(
        512_000_000,
        ge=200_000_000,
        description="Memory one worker process decodes in, all its threads together; a picture "
        "that needs more is rejected",
    )
    max_backlog_items: int = Field(
        5_000_000, ge=1, description="Items waiting in all jobs before new ones are answered 503"
    )
    quota_items: int = Field(
        2_000_000, ge=1, description="Items one API key may have waiting before it is answered 429"
    )
    draft_ttl_s: int = Field(86400, ge=60, description="A draft is kept this long unless submitted")
    idempotency_ttl_s: int = Field(
        86400, ge=60, description="An Idempotency-Key is remembered this long"
    )
    job_ttl_s: int = Field(7 * 86400, ge=60, description="A job and its results are kept this long")
    cache_ttl_s: int = Field(
        86400, ge=1, description="Scores are kept this long for jobs with `use_cache`"
    )
    sync_timeout_s: float = Field(
        30, gt=0, description="How long POST /scorefile/ waits for its score"
    )
    fetch_timeout_s: float = Field(
        15, gt=0, description="Deadline of one picture's download, redirects included"
    )
    fetch_concurrency: int = Field(
        64, ge=1, description="Downloads one worker process runs at a time"
    )
    fetch_per_host: int = Field(
        16,
        ge=1,
        description="Downloads one worker process runs at a time from one host; at most half of "
        "all, so that a host that hangs leaves room for the others",
    )
    fetch_budget_bytes: int = Field(
        200_000_000,
        ge=1,
        description="Bytes that the downloads of one worker process hold together; beyond it one "
        "picture at a time is let through",
    )
    fetch_allow_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (),
        description="Private ranges pictures may come from and webhooks go to, such as 10.0.0.0/8, "
        "comma separated",
    )
    storage_url: str = Field(
        IN_REDIS,
        description="Where uploaded pictures are kept and results written: redis, or "
        "s3://bucket/prefix, where results are files besides",
    )
    s3_endpoint_url: str | None = Field(
        None, description="The S3 server, such as https://s3.example.com; Amazon's if unset"
    )
    s3_region: str | None = Field(None, description="Its region; as boto3 finds it if unset")
    s3_path_style: bool | None = Field(
        None,
        description="Name the bucket in the path of a request (true) or in its host name (false); "
        "if unset, in the path wherever an endpoint is set",
    )
    s3_encryption: Literal["AES256", "aws:kms"] | None = Field(
        None, description="Server-side encryption of what is written to S3: AES256 or aws:kms"
    )
    s3_kms_key_id: str | None = Field(None, description="The key of the encryption aws:kms")
    s3_fetch_buckets: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Buckets that s3:// items may come from, comma separated"
    )
    webhook_retry_s: Annotated[tuple[PositiveFloat, ...], NoDecode] = Field(
        (5, 30, 120, 600, 3600, 6 * 3600, 12 * 3600, 86400, 86400),
        description="Waits before each further attempt at a webhook, comma separated; each is "
        "varied by a fifth",
    )
    webhook_timeout_s: float = Field(
        15, gt=0, description="How long a webhook's receiver may take to answer"
    )
    allow_no_keys: bool = Field(
        False, description="Serve beyond this machine although no API key is set up"
    )
    metrics_host: str = Field(
        "127.0.0.1", description="The address a worker serves its metrics on, to whoever asks"
    )
    metrics_port: int = Field(
        0, ge=0, le=65535, description="The port a worker serves its metrics on; 0: it serves none"
    )
    log_json: bool = Field(True, description="Logs as JSON lines; false for people")

    @property
    def models_bytes(self) -> int:
        """Give `models_memory_bytes`, or what stands for it where it is unset."""
        return self.models_memory_bytes or MODELS_BYTES_A_THREAD * self.threads

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return value

    @field_validator("storage_url")
    @classmethod
    def _redis_or_folder(cls, value: str) -> str:
        if value != IN_REDIS and not S3_FOLDER.fullmatch(value):
            raise ValueError("must be redis, or like s3://bucket/prefix")
        return value

    @field_validator("registry_url")
    @classmethod
    def _folder_or_bucket(cls, value: str | None) -> str | None:
        if value is not None and "://" in value and not S3_FOLDER.fullmatch(value):
            raise ValueError("must be the path of a folder, or like s3://bucket/prefix")
        return value

    @field_validator("model_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with https:// or http://")
        return value

    @model_validator(mode="after")
    def _url_and_sha256(self) -> Self:
        if (self.model_url is None) != (self.model_sha256 is None):
            raise ValueError("set PIQUEUE_MODEL_URL and PIQUEUE_MODEL_SHA256, or neither")
        return self

    @field_validator("s3_endpoint_url")
    @classmethod
    def _http_without_password(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise ValueError("must be like https://s3.example.com, without user and password")
        return value

    @field_validator("s3_kms_key_id")
    @classmethod
    def _key_has_a_use(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("s3_encryption") != "aws:kms":
            raise ValueError("set PIQUEUE_S3_ENCRYPTION=aws:kms as well, or unset this")
        return value

    @field_validator("fetch_allow_networks", "s3_fetch_buckets", "webhook_retry_s", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; keyword arguments win over it.

    Raises:
        SettingsInvalid: a value does not fit, or a PIQUEUE_ variable has no setting; the text
            names each and says what to change.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    unknown = sorted(
        name
        for name in os.environ
        if name.startswith(PREFIX) and name not in known | CLIENT_VARIABLES
    )
    if unknown:
        raise SettingsInvalid(
            f"unknown setting {', '.join(unknown)}: correct or unset it; "
            f"the settings are {', '.join(sorted(known))}"
        )
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = (
            f"{PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']}"
            if problem["loc"]
            else problem["msg"]
            for problem in error.errors()
        )
        raise SettingsInvalid("; ".join(lines)) from None


def require_boto3() -> None:
    """Raise SettingsInvalid unless boto3 is installed."""
    if find_spec("boto3") is None:
        raise SettingsInvalid("the settings name S3, which needs boto3: install piqueue[s3]")
