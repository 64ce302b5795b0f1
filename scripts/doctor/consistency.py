"""Checks the consistency of settings that are each valid but contradict one another."""

from collections.abc import Iterator
from functools import partial

from scripts.doctor import check_result
from scripts.doctor.check_result import CheckResult, ok
from worker.jobs.redis_url import RedisAddress
from worker.jobs.settings import Settings, is_loopback

SHORTEST_LEASE_S = 10
BYTES_PER_PIXEL = 3  # decoded RGB, the least that a picture takes

warning = partial(check_result.warning, "settings")
problem = partial(check_result.problem, "settings")


def check_settings(settings: Settings) -> Iterator[CheckResult]:
    """Report each contradiction."""
    found = [*_deadlines(settings), *_sizes(settings), *_addresses(settings)]
    yield from found or [ok("settings", "are consistent")]


def _deadlines(settings: Settings) -> Iterator[CheckResult]:
    lease_s, deadline_s = settings.lease_s, settings.chunk_deadline_s
    if lease_s < SHORTEST_LEASE_S:
        yield warning(
            f"with a PIQUEUE_LEASE_S of {lease_s:g}, chunks of a worker that pauses briefly are "
            "scored twice",
            f"set PIQUEUE_LEASE_S to {SHORTEST_LEASE_S} or more",
        )
    if lease_s > deadline_s:
        yield warning(
            f"PIQUEUE_LEASE_S ({lease_s:g}) is longer than PIQUEUE_CHUNK_DEADLINE_S "
            f"({deadline_s:g}): the chunk of a stuck worker waits after the worker has ended",
            "set PIQUEUE_LEASE_S below PIQUEUE_CHUNK_DEADLINE_S",
        )
    if settings.fetch_timeout_s > deadline_s / 2:
        yield problem(
            f"a download may take {settings.fetch_timeout_s:g} s, but a worker ends itself after "
            f"{deadline_s:g} s with one chunk: slow hosts will end workers",
            "set PIQUEUE_CHUNK_DEADLINE_S to twice PIQUEUE_FETCH_TIMEOUT_S or more",
        )
    if settings.job_ttl_s < (retries_s := sum(settings.webhook_retry_s)):
        yield warning(
            "jobs expire before the last attempts at their webhooks",
            f"raise PIQUEUE_JOB_TTL_S above the sum of PIQUEUE_WEBHOOK_RETRY_S, {retries_s:g}",
        )
    if settings.job_ttl_s < settings.idempotency_ttl_s:
        yield warning(
            "an Idempotency-Key outlives its job, so a repeated request names a deleted job",
            "set PIQUEUE_IDEMPOTENCY_TTL_S to PIQUEUE_JOB_TTL_S or less",
        )


def _sizes(settings: Settings) -> Iterator[CheckResult]:
    if settings.fetch_budget_bytes < settings.max_item_bytes:
        yield warning(
            "one picture may be larger than the memory for all downloads of a worker, so large "
            "pictures are fetched one at a time",
            "set PIQUEUE_FETCH_BUDGET_BYTES to several times PIQUEUE_MAX_ITEM_BYTES",
        )
    if settings.fetch_per_host > max(1, settings.fetch_concurrency // 2):
        yield warning(
            "PIQUEUE_FETCH_PER_HOST is more than half of PIQUEUE_FETCH_CONCURRENCY, which is the "
            "most that one host gets",
            "lower PIQUEUE_FETCH_PER_HOST or raise PIQUEUE_FETCH_CONCURRENCY",
        )
    if settings.max_item_bytes > settings.max_request_bytes:
        yield problem(
            "a picture of PIQUEUE_MAX_ITEM_BYTES does not fit into a request",
            "raise PIQUEUE_MAX_REQUEST_BYTES above PIQUEUE_MAX_ITEM_BYTES",
        )
    if settings.max_items > settings.max_backlog_items:
        yield problem(
            "a job of PIQUEUE_MAX_ITEMS is never admitted: it exceeds the backlog limit",
            "set PIQUEUE_MAX_BACKLOG_ITEMS to PIQUEUE_MAX_ITEMS or more",
        )
    if settings.max_items > settings.quota_items:
        yield warning(
            "a job of PIQUEUE_MAX_ITEMS exceeds the quota of an API key",
            "set PIQUEUE_QUOTA_ITEMS to PIQUEUE_MAX_ITEMS or more",
        )
    if (needed := settings.max_pixels * BYTES_PER_PIXEL) > settings.decode_memory_bytes:
        yield warning(
            "a picture of PIQUEUE_MAX_PIXELS does not fit into the memory for decoding and is "
            "rejected",
            f"set PIQUEUE_DECODE_MEMORY_BYTES to {needed} or more, or lower PIQUEUE_MAX_PIXELS",
        )


def _addresses(settings: Settings) -> Iterator[CheckResult]:
    names_s3 = settings.stores_on_s3 or (settings.registry_url or "").startswith("s3:")
    if settings.s3_endpoint_url and not names_s3 and not settings.s3_fetch_buckets:
        yield warning(
            "PIQUEUE_S3_ENDPOINT_URL is set, but no setting uses S3",
            "set PIQUEUE_STORAGE_URL or PIQUEUE_S3_FETCH_BUCKETS, or unset it",
        )
    redis = RedisAddress.parse(settings.redis_url)
    if not redis.login and not all(is_loopback(node) for node, _ in redis.nodes):
        yield warning(
            "PIQUEUE_REDIS_URL names another machine but no password",
            "give Redis a password (requirepass), and write redis://:PASSWORD@HOST:6379/0",
        )
