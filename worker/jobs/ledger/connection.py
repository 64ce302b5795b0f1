"""The connection to Redis, and the errors for a Redis that is unavailable or full."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isfunction, isgeneratorfunction
from typing import Any

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from worker.jobs.errors import LedgerFull, LedgerUnavailable


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
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=5,
        health_check_interval=15,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), retries, passing),
    )


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
        raise LedgerUnavailable(f"Redis does not answer ({type(error).__name__})") from error
    except OutOfMemoryError as error:
        raise LedgerFull("Redis accepts no writes: its memory is full") from error
    except ReadOnlyError as error:
        raise LedgerFull("Redis accepts no writes: it is a replica") from error
    except ResponseError as error:
        if "MISCONF " not in str(error):
            raise
        raise LedgerFull(
            "Redis accepts no writes: it cannot save them, its disk is full"
        ) from error


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
