"""Checks Redis: whether it answers, its durability, memory, latency and clock."""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from worker.jobs.errors import LedgerUnavailable, SettingsInvalid
from worker.jobs.ledger.connection import connect, ledger_errors
from worker.jobs.ledger.server import RedisServer, server_info
from worker.jobs.redis_url import RedisAddress
from worker.jobs.settings import Settings

TIMEOUT_S = 3.0
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
    address = RedisAddress.parse(settings.redis_url)
    try:
        with open_redis(settings) as client, ledger_errors():
            yield from _check(client, address, now)
    except LedgerUnavailable as error:
        yield problem(
            "redis",
            f"{address}: {error}",
            "set PIQUEUE_REDIS_URL to the Redis of the service (piqueue serve prints it), or start "
            "that Redis: without it all work stops",
        )
    except SettingsInvalid as error:
        yield problem("redis", f"{address} answers", str(error))


def _check(client: Redis, address: RedisAddress, now: Callable[[], float]) -> Iterator[CheckResult]:
    server = RedisServer(client)
    server.require_usable()
    hello, info = server.hello(), server_info(client)
    version = info.get("valkey_version", hello["version"])
    yield ok("redis", f"{address} answers, version {version}")
    if hello["role"] != "master":
        yield problem("redis role", "is a replica", "set PIQUEUE_REDIS_URL to the primary")
    if "used_memory" not in info:
        yield warning(
            "redis permissions",
            "INFO is refused: the API cannot refuse work before Redis is full, and some checks "
            "cannot run",
            "grant the user +info",
        )
    yield from _eviction(info)
    yield from _persistence(client, info)
    yield from _memory(info)
    if address.service and "role" in info:
        yield _replicas(info)
    yield _latency(client)
    yield _clock(client, now)


def _eviction(info: dict[str, Any]) -> Iterator[CheckResult]:
    check, policy = "redis eviction", info.get("maxmemory_policy")
    if policy is None:
        yield warning(check, "unknown: INFO and CONFIG are refused", "grant the user +info")
    elif policy == "noeviction":
        yield ok(check, policy)
    else:
        advice = f"set maxmemory-policy noeviction, {_SET}"
        yield problem(check, f"{policy}: a full Redis deletes jobs", advice)


def _persistence(client: Any, info: dict[str, Any]) -> Iterator[CheckResult]:
    check = "redis persistence"
    if "aof_enabled" not in info:
        yield warning(check, "unknown: INFO and CONFIG are refused", "grant the user +info")
        return
    if not info["aof_enabled"]:
        advice = f"set appendonly yes and appendfsync everysec, {_SET}"
        yield problem(check, "the append-only file is off: a restart loses jobs", advice)
        return
    if info.get("aof_last_write_status", "ok") != "ok":
        yield problem(check, "cannot write to its disk", "free space on the disk of Redis")
        return
    try:
        fsync = client.config_get("appendfsync").get("appendfsync")
    except ResponseError:  # hosted servers do not allow CONFIG
        yield ok(check, "append-only")
        return
    if fsync == "no":
        yield warning(
            check,
            "append-only, but flushed by the operating system: a crash loses up to 30 s",
            f"set appendfsync everysec, {_SET}",
        )
    else:
        yield ok(check, f"append-only, appendfsync {fsync}")


def _memory(info: dict[str, Any]) -> Iterator[CheckResult]:
    if "used_memory" not in info:
        return
    check, used, limit = "redis memory", info["used_memory"], info["maxmemory"]
    if not limit:
        yield warning(
            check,
            f"{_mb(used)} used, without a limit: the kernel kills Redis when memory runs out",
            f"set maxmemory to about half of the machine's, {_SET}",
        )
        return
    share = used / limit
    text = f"{_mb(used)} of {_mb(limit)} used, {share:.0%}"
    advice = (
        "raise maxmemory, store uploads in a folder or on S3 (PIQUEUE_STORAGE_URL) or lower "
        "PIQUEUE_JOB_TTL_S"
    )
    if share > FULL:
        yield problem(check, f"{text}: above {FULL:.0%} the API refuses new jobs", advice)
    else:
        yield warning(check, text, advice) if share > FILLING else ok(check, text)


def _replicas(info: dict[str, Any]) -> CheckResult:
    check, count = "redis replicas", info["connected_slaves"]
    if not count:
        return problem(check, "none follows the primary: no failover is possible", "start one")
    # INFO has this field only if min-replicas-to-write is set.
    if "min_slaves_good_slaves" not in info:
        return warning(
            check,
            f"{count}, but a primary that is cut off from them goes on accepting work",
            f"set min-replicas-to-write 1 and min-replicas-max-lag 10, {_SET}",
        )
    return ok(check, str(count))


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
