"""Settings that are each valid and contradict one another."""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from worker.jobs.settings import IN_REDIS, Settings

SHORTEST_LEASE_S = 10
BYTES_PER_PIXEL = 3  # decoded RGB, the least that a picture takes


def check_settings(settings: Settings) -> Iterator[CheckResult]:
    """Name each contradiction."""
    found = [*_deadlines(settings), *_sizes(settings), *_places(settings)]
    yield from found
    if not found:
        yield ok("settings", "agree with each other")


def _deadlines(settings: Settings) -> Iterator[CheckResult]:
    if settings.lease_s < SHORTEST_LEASE_S:
        yield warning(
            "settings",
            f"PIQUEUE_LEASE_S is {settings.lease_s:g}: a moment's silence of a worker has its "
            "pictures scored twice",
            f"set PIQUEUE_LEASE_S to {SHORTEST_LEASE_S} or more",
        )
    if settings.lease_s > settings.chunk_deadline_s:
        yield warning(
            "settings",
            f"PIQUEUE_LEASE_S is {settings.lease_s:g} and PIQUEUE_CHUNK_DEADLINE_S "
            f"{settings.chunk_deadline_s:g}: a worker that ends itself is waited for all the same",
            "set PIQUEUE_LEASE_S below PIQUEUE_CHUNK_DEADLINE_S",
        )
    if settings.fetch_timeout_s > settings.chunk_deadline_s / 2:
        yield problem(
            "settings",
            f"one download may take {settings.fetch_timeout_s:g} s, and a worker ends itself over "
            f"a chunk of {settings.chunk_deadline_s:g} s: slow hosts will end workers",
            "set PIQUEUE_CHUNK_DEADLINE_S to twice PIQUEUE_FETCH_TIMEOUT_S or more",
        )
    if settings.job_ttl_s < sum(settings.webhook_retry_s):
        yield warning(
            "settings",
            "jobs expire before the last attempts at their webhooks",
            "raise PIQUEUE_JOB_TTL_S above the sum of PIQUEUE_WEBHOOK_RETRY_S, "
            f"{sum(settings.webhook_retry_s):g}",
        )
    if settings.job_ttl_s < settings.idempotency_ttl_s:
        yield warning(
            "settings",
            "an Idempotency-Key outlives its job, so a repeated request names a job that is gone",
            "set PIQUEUE_IDEMPOTENCY_TTL_S to PIQUEUE_JOB_TTL_S or less",
        )


def _sizes(settings: Settings) -> Iterator[CheckResult]:
    if settings.fetch_budget_bytes < settings.max_item_bytes:
        yield warning(
            "settings",
            "a picture may be larger than all that a worker's downloads hold together, so large "
            "ones are fetched one at a time",
            "set PIQUEUE_FETCH_BUDGET_BYTES to a few times PIQUEUE_MAX_ITEM_BYTES",
        )
    if settings.fetch_per_host > max(1, settings.fetch_concurrency // 2):
        yield warning(
            "settings",
            "PIQUEUE_FETCH_PER_HOST is over half of PIQUEUE_FETCH_CONCURRENCY, which is all that "
            "one host gets",
            "lower the one or raise the other",
        )
    if settings.max_item_bytes > settings.max_request_bytes:
        yield problem(
            "settings",
            "a picture of PIQUEUE_MAX_ITEM_BYTES does not fit into a request",
            "raise PIQUEUE_MAX_REQUEST_BYTES above PIQUEUE_MAX_ITEM_BYTES",
        )
    if settings.max_items > settings.max_backlog_items:
        yield problem(
            "settings",
            "a job of PIQUEUE_MAX_ITEMS is never admitted: it is more than may wait in all",
            "set PIQUEUE_MAX_BACKLOG_ITEMS to PIQUEUE_MAX_ITEMS or more",
        )
    if settings.max_items > settings.quota_items:
        yield warning(
            "settings",
            "a job of PIQUEUE_MAX_ITEMS is over what one API key may have waiting",
            "set PIQUEUE_QUOTA_ITEMS to PIQUEUE_MAX_ITEMS or more",
        )
    if settings.max_pixels * BYTES_PER_PIXEL > settings.decode_memory_bytes:
        yield warning(
            "settings",
            "a picture of PIQUEUE_MAX_PIXELS does not fit into what workers decode in, and is "
            "rejected",
            "set PIQUEUE_DECODE_MEMORY_BYTES to "
            f"{settings.max_pixels * BYTES_PER_PIXEL} or more, or lower PIQUEUE_MAX_PIXELS",
        )


def _places(settings: Settings) -> Iterator[CheckResult]:
    names_s3 = settings.storage_url != IN_REDIS or (settings.registry_url or "").startswith("s3:")
    if settings.s3_endpoint_url and not names_s3 and not settings.s3_fetch_buckets:
        yield warning(
            "settings",
            "PIQUEUE_S3_ENDPOINT_URL is set, and nothing is on S3",
            "set PIQUEUE_STORAGE_URL or PIQUEUE_S3_FETCH_BUCKETS, or unset it",
        )
    redis = urlsplit(settings.redis_url)
    if redis.scheme != "unix" and not redis.password and not is_this_machine(redis.hostname or ""):
        yield warning(
            "settings",
            "PIQUEUE_REDIS_URL names another machine and no password",
            "give Redis a password (requirepass), and write redis://:PASSWORD@HOST:6379/0",
        )


def is_this_machine(host: str) -> bool:
    """Whether the name or address is one that other machines do not reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
