"""The connection to Redis, and the errors for a Redis that is unavailable or full."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from inspect import isfunction, isgeneratorfunction
from ssl import SSLCertVerificationError
from typing import Any, cast

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.connection import SSLConnection
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelManagedConnection

from worker.jobs.errors import LedgerFull, LedgerUnavailable
from worker.jobs.redis_url import RedisAddress

# Codes of Redis, anywhere in its text: a script's error may begin otherwise.
_NO_WRITES = {
    "MISCONF ": "it cannot save them, its disk is full",
    "NOREPLICAS ": "too few replicas follow it (min-replicas-to-write)",
}
CONNECT_S = 5
SENTINEL_S = 1


def connect(
    url: str, *, timeout_s: float = 10, retries: int = 3, retry_silence: bool = False
) -> Redis:
    """Return a client that retries a lost connection `retries` times, for about a second each.

    With `retry_silence` it also retries a command that has no answer after `timeout_s`; without it
    such a command fails, so that a caller learns that Redis hangs.
    """
    passing = (
        (RedisConnectionError, RedisTimeoutError) if retry_silence else (RedisConnectionError,)
    )
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), retries, passing)
    address = RedisAddress.parse(url)
    options = _options(address, timeout_s) | {"retry": retry}
    if not address.service:
        return Redis(**options)
    login, sentinels = sentinel_options(address), cast(Any, Sentinel)
    sentinel = sentinels(address.nodes, sentinel_kwargs=login, **options)
    kind = _PrimaryTlsConnection if options.pop("ssl", False) else _PrimaryConnection
    client: Redis = sentinel.master_for(address.service, connection_class=kind)
    return client


class _PrimaryConnection(SentinelManagedConnection):
    """Asks the Sentinels for the primary each time it opens a socket.

    redis-py does not ask again when it repeats a command (redis/redis-py#3874).
    """

    def _connect(self) -> Any:
        self.host, self.port = self.connection_pool.get_master_address()
        return super()._connect()  # type: ignore[no-untyped-call]


class _PrimaryTlsConnection(_PrimaryConnection, SSLConnection):
    pass


@asynccontextmanager
async def connect_async(url: str, *, timeout_s: float = 10) -> AsyncIterator[AsyncRedis]:
    """Give a client for an event loop that does not retry a lost connection."""
    address = RedisAddress.parse(url)
    once = {"retry": AsyncRetry(NoBackoff(), 0)}
    options = _options(address, timeout_s) | once
    if not address.service:
        async with AsyncRedis(**options) as client:
            yield client
        return
    login, sentinels = sentinel_options(address) | once, cast(Any, AsyncSentinel)
    async with (
        sentinels(address.nodes, sentinel_kwargs=login, **options) as sentinel,
        sentinel.master_for(address.service) as client,
    ):
        yield client


def _options(address: RedisAddress, timeout_s: float) -> dict[str, Any]:
    options = {
        **address.login,
        **_tls(address),
        "db": address.db,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": CONNECT_S,
        "health_check_interval": 15,
    }
    if address.socket_path:
        options["unix_socket_path"] = address.socket_path
    elif not address.service:
        options["host"], options["port"] = address.nodes[0]
    return options


def sentinel_options(address: RedisAddress) -> dict[str, Any]:
    """The options of connections to Sentinels, which are asked one after the other."""
    return {
        **address.sentinel_login,
        **_tls(address),
        "socket_timeout": SENTINEL_S,
        "socket_connect_timeout": SENTINEL_S,
        "retry": Retry(NoBackoff(), 0),
    }


def _tls(address: RedisAddress) -> dict[str, Any]:
    return {"ssl": True, **address.tls} if address.tls else {}


def in_ms(time: tuple[int, int]) -> int:
    """Convert the answer to TIME into milliseconds since 1970."""
    seconds, microseconds = time
    return seconds * 1000 + microseconds // 1000


@contextmanager
def ledger_errors() -> Iterator[None]:
    """Raise LedgerUnavailable if Redis does not answer, LedgerFull if it accepts no writes."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise LedgerUnavailable(_unavailable(error)) from error
    except OutOfMemoryError as error:
        raise LedgerFull("Redis accepts no writes: its memory is full") from error
    except ReadOnlyError as error:
        raise LedgerFull("Redis accepts no writes: it is a replica") from error
    except NoPermissionError as error:
        raise LedgerUnavailable(f"Redis refuses a command to its user: {error}") from error
    except ResponseError as error:
        for code, reason in _NO_WRITES.items():
            if code in str(error):
                raise LedgerFull(f"Redis accepts no writes: {reason}") from error
        raise


def _unavailable(error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return "Redis refuses the user or the password of PIQUEUE_REDIS_URL"
    if isinstance(error, MasterNotFoundError):
        return "no Sentinel of PIQUEUE_REDIS_URL names a primary: check its service and password"
    if isinstance(error.__context__, SSLCertVerificationError):
        return f"the certificate of Redis is refused: {error.__context__.verify_message}"
    return f"Redis does not answer ({type(error).__name__})"


class RedisClient:
    """Base of the classes that use Redis.

    Every public method of a subclass, generators included, runs in `ledger_errors`.
    """

    def __init__(self, redis: Redis) -> None:
        # redis-py annotates answers as either awaited or not, so the client is untyped here.
        self._redis: Any = redis

    def __init_subclass__(cls) -> None:
        for name, method in list(vars(cls).items()):
            if isfunction(method) and not name.startswith("_"):
                setattr(cls, name, _with_ledger_errors(method))


def _with_ledger_errors(method: Callable[..., Any]) -> Callable[..., Any]:
    if not isgeneratorfunction(method):
        return ledger_errors()(method)

    @wraps(method)
    def generate(*args: Any, **options: Any) -> Iterator[Any]:
        with ledger_errors():
            yield from method(*args, **options)

    return generate
