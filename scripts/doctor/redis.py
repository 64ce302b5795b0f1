"""Checks Redis: whether it answers, its durability, memory, latency and clock."""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from redis import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from worker.jobs.ledger.connection import connect
from worker.jobs.redis_url import RedisAddress
from worker.jobs.settings import Settings

TIMEOUT_S = 3.0
LEAST_VERSION = (7, 0)  # scripts with flags
PINGS = 20
SLOW_MS = 5.0
# From FULL on the API refuses new jobs.
FILLING, FULL = 0.6, 0.8
# S3 refuses signatures that are 15 minutes off, webhook receivers 5.
SKEW_S, FAR_SKEW_S = 2.0, 120.0
_SET = "in redis.conf and by CONFIG SET"


def open_redis(settings: Settings) -> Redis:
    """Connect with a short timeout."""
    return connect(settings.redis_url, timeout_s=TIMEOUT_S, retries=0)


def check_redis(settings: Settings, now: Callable[[], float] = time.time) -> Iterator[CheckResult]:
    """Check the server of PIQUEUE_REDIS_URL; `now` is this machine's clock."""
    address = str(RedisAddress.parse(settings.redis_url))
    try:
        with open_redis(settings) as client:
            yield from _check(client, address, now)
    except AuthenticationError:
        yield problem(
            "redis", "refuses the password or needs one", "put the password into PIQUEUE_REDIS_URL"
        )
    except (RedisError, OSError) as error:
        yield problem(
            "redis",
            f"{address} does not answer ({type(error).__name__})",
            "start it, or correct PIQUEUE_REDIS_URL; without Redis all work stops",
        )


def _check(client: Any, address: str, now: Callable[[], float]) -> Iterator[CheckResult]:
    info = client.info()
    version = str(info["redis_version"])
    text = f"{address} answers, version {info.get('valkey_version', version)}"
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_VERSION:
        yield problem("redis", text, "run Redis 7.0 or later, or Valkey")
    else:
        yield ok("redis", text)
    if info["role"] != "master":
        yield problem("redis role", "is a replica", "set PIQUEUE_REDIS_URL to the primary")
    yield _persistence(client, info)
    if (policy := info["maxmemory_policy"]) == "noeviction":
        yield ok("redis eviction", policy)
    else:
        advice = f"set maxmemory-policy noeviction, {_SET}"
        yield problem("redis eviction", f"{policy}: a full Redis deletes jobs", advice)
    yield _memory(info)
    yield _latency(client)
    yield _clock(client, now)


def _persistence(client: Any, info: dict[str, Any]) -> CheckResult:
    check = "redis persistence"
    if not info["aof_enabled"]:
        advice = f"set appendonly yes and appendfsync everysec, {_SET}"
        return problem(check, "the append-only file is off: a restart loses jobs", advice)
    if info["aof_last_write_status"] != "ok":
        return problem(check, "cannot write to its disk", "free space on the disk of Redis")
    try:
        fsync = client.config_get("appendfsync").get("appendfsync")
    except ResponseError:  # hosted servers do not allow CONFIG
        return ok(check, "append-only")
    if fsync == "no":
        return warning(
            check,
            "append-only, but flushed by the operating system: a crash loses up to 30 s",
            f"set appendfsync everysec, {_SET}",
        )
    return ok(check, f"append-only, appendfsync {fsync}")


def _memory(info: dict[str, Any]) -> CheckResult:
    check, used, limit = "redis memory", info["used_memory"], info["maxmemory"]
    if not limit:
        return warning(
            check,
            f"{_mb(used)} used, without a limit: the kernel kills Redis when memory runs out",
            f"set maxmemory to about half of the machine's, {_SET}",
        )
    share = used / limit
    text = f"{_mb(used)} of {_mb(limit)} used, {share:.0%}"
    advice = "raise maxmemory, store uploads on S3 (PIQUEUE_STORAGE_URL) or lower PIQUEUE_JOB_TTL_S"
    if share > FULL:
        return problem(check, f"{text}: above {FULL:.0%} the API refuses new jobs", advice)
    return warning(check, text, advice) if share > FILLING else ok(check, text)


def _latency(client: Any) -> CheckResult:
    taken_ms = []
    for _ in range(PINGS):
        started = time.perf_counter()
        client.ping()
        taken_ms.append((time.perf_counter() - started) * 1000)
    text = f"{median(taken_ms):.1f} ms per round trip, {max(taken_ms):.1f} at most"
    advice = "run Redis near the API and the workers; check its SLOWLOG and the load of its machine"
    slow = median(taken_ms) > SLOW_MS
    return warning("redis latency", text, advice) if slow else ok("redis latency", text)


def _clock(client: Any, now: Callable[[], float]) -> CheckResult:
    before = now()
    seconds, microseconds = client.time()
    after = now()
    skew_s = (before + after) / 2 - (seconds + microseconds / 1e6)
    # The uncertainty is half of the round trip.
    certain_s = abs(skew_s) - (after - before) / 2
    if certain_s <= SKEW_S:
        return ok("clock", "this machine and Redis agree")
    text = f"this machine is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} Redis"
    result = problem if certain_s > FAR_SKEW_S else warning
    return result("clock", text, "run NTP (chrony, systemd-timesyncd) on both machines")


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
