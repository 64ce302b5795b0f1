"""The Redis server: whether Piqueue can use it, and what its configuration can lose."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from worker.jobs.errors import LedgerUnavailable, SettingsInvalid
from worker.jobs.ledger.connection import RedisClient, connect

LEAST_VERSION = (7, 0)  # functions
READ_EVERY_S = 10.0
_KEY = "piqueue:probe"
# What the ledger, its functions and Celery run, each with the arguments that it needs at least.
COMMANDS = f"""
BRPOP {_KEY} 1
CLIENT SETNAME piqueue-worker
COPY {_KEY} {_KEY}
DECRBY {_KEY} 1
DEL {_KEY}
EVALSHA 0 0
EXISTS {_KEY}
EXPIRE {_KEY} 1
FCALL piqueue 0
FUNCTION LOAD piqueue
GET {_KEY}
HDEL {_KEY} f
HEXISTS {_KEY} f
HGET {_KEY} f
HGETALL {_KEY}
HINCRBY {_KEY} f 1
HLEN {_KEY}
HMGET {_KEY} f
HSET {_KEY} f 1
HSETNX {_KEY} f 1
HVALS {_KEY}
INCRBY {_KEY} 1
LLEN {_KEY}
LPUSH {_KEY} 1
LRANGE {_KEY} 0 1
LTRIM {_KEY} 0 1
MGET {_KEY}
PERSIST {_KEY}
PING
PTTL {_KEY}
PUBLISH piqueue:events 1
RPOP {_KEY}
RPUSH {_KEY} 1
SADD {_KEY} 1
SCRIPT LOAD 0
SET {_KEY} 1
SETBIT {_KEY} 0 1
SMEMBERS {_KEY}
SREM {_KEY} 1
SUBSCRIBE piqueue:events
TIME
UNLINK {_KEY}
UNWATCH
ZADD {_KEY} 1 1
ZCARD {_KEY}
ZPOPMIN {_KEY}
ZRANGE {_KEY} 0 1
ZRANK {_KEY} 1
ZREM {_KEY} 1
ZSCORE {_KEY} 1
""".strip().splitlines()
_WITH_SUBCOMMAND = ("CLIENT", "FUNCTION", "SCRIPT")

log = structlog.get_logger()


class RedisServer(RedisClient):
    """The server of PIQUEUE_REDIS_URL; every method raises LedgerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._warnings: tuple[float, list[str]] = (0.0, [])

    def require_usable(self) -> None:
        """Raise SettingsInvalid, with the reason, if Piqueue cannot work with this server."""
        try:
            server = _hello(self._redis)
        except (AuthenticationError, NoPermissionError) as error:
            raise SettingsInvalid(
                f"PIQUEUE_REDIS_URL: Redis refuses its user ({error}): correct user and password"
            ) from error
        if server["mode"] == "cluster":
            raise SettingsInvalid(
                "PIQUEUE_REDIS_URL names a Redis Cluster, which Piqueue cannot use: name a Redis "
                "without cluster mode, or Sentinels"
            )
        if server["mode"] == "sentinel":
            raise SettingsInvalid(
                "PIQUEUE_REDIS_URL names a Sentinel: write redis+sentinel://HOST:PORT/SERVICE/0"
            )
        if tuple(int(part) for part in server["version"].split(".")[:2]) < LEAST_VERSION:
            raise SettingsInvalid(
                f"PIQUEUE_REDIS_URL names a Redis {server['version']}: run 7.0 or later, or Valkey"
            )
        if refused := self.refused_commands():
            raise SettingsInvalid(
                f"PIQUEUE_REDIS_URL: its user may not run {', '.join(refused)} on the keys and "
                "channels piqueue:*; grant the user what OPERATIONS.md lists"
            )

    def hello(self) -> dict[str, str]:
        """The mode, version and role of the server."""
        return _hello(self._redis)

    def refused_commands(self) -> list[str]:
        """Name the commands that this user may not run, without running any."""
        with self._redis.client() as client:
            connection = client.connection

            def permits(command: str) -> bool:
                connection.send_command(*command.split())
                try:
                    connection.read_response()
                except NoPermissionError:
                    return False
                except ResponseError as error:
                    return "unknown command" not in str(error)  # for one that is renamed
                return True

            # Redis checks the permissions of a transaction before it runs the first command.
            if not permits("MULTI"):
                return ["MULTI"]
            refused = [command.split() for command in COMMANDS if not permits(command)]
            permits("DISCARD")
        return [" ".join(words[: 1 + (words[0] in _WITH_SUBCOMMAND)]) for words in refused]

    def warnings(self) -> list[str]:
        """What the configuration of the server can lose, read every ten seconds."""
        read_at, warnings = self._warnings
        if time.monotonic() - read_at > READ_EVERY_S or not read_at:
            warnings = list(_warnings(server_info(self._redis, "memory", "persistence")))
            self._warnings = (time.monotonic(), warnings)
        return warnings


def _hello(redis: Any) -> dict[str, str]:
    answer = redis.execute_command("HELLO")  # which needs no permission
    texts = {name: value for name, value in answer.items() if isinstance(value, bytes)}
    return {name.decode(): value.decode() for name, value in texts.items()}


def server_info(redis: Any, *sections: str) -> dict[str, Any]:
    """Read INFO, or what CONFIG GET says of it if this user may not run INFO; else nothing."""
    with suppress(ResponseError):
        info: dict[str, Any] = redis.info(*sections)
        return info
    with suppress(ResponseError, LookupError):
        config = redis.config_get("maxmemory*", "appendonly")
        return {
            "maxmemory": int(config["maxmemory"]),
            "maxmemory_policy": config["maxmemory-policy"],
            "aof_enabled": int(config["appendonly"] == "yes"),
        }
    return {}


def _warnings(info: Mapping[str, Any]) -> Iterator[str]:
    policy, append_only = info.get("maxmemory_policy"), info.get("aof_enabled")
    if policy is None or append_only is None:
        yield (
            "it is unknown whether Redis can lose jobs: its user may run neither INFO nor "
            "CONFIG GET"
        )
    if policy not in (None, "noeviction"):
        yield f"a full Redis deletes jobs: set maxmemory-policy noeviction instead of {policy}"
    if append_only == 0:
        yield "a restart of Redis loses jobs: set appendonly yes"


def check_at_start(redis_url: str) -> None:
    """Log what the server can lose, and that it does not answer.

    Raises:
        SettingsInvalid: Piqueue cannot work with this server.
    """
    with connect(redis_url, retries=1) as redis:
        server = RedisServer(redis)
        try:
            server.require_usable()
            for warning in server.warnings():
                log.warning("redis_unsafe", reason=warning)
        except LedgerUnavailable as error:
            log.warning("redis_unavailable", reason=str(error))
