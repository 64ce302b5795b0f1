"""The connection to Redis, and what its being away or full is called here."""

from collections.abc import Iterator
from contextlib import contextmanager

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
    """Give a client; a lost connection is tried again `retries` times, for about a second each.

    With `retry_silence` a command that has no answer after `timeout_s` is too; else it fails then,
    so that who waits for a Redis that hangs hears of it.
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
    """Give what Redis answers to TIME in ms since 1970."""
    seconds, microseconds = time
    return seconds * 1000 + microseconds // 1000


@contextmanager
def ledger_errors() -> Iterator[None]:
    """Turn Redis being away into LedgerUnavailable, and it being full into LedgerFull."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise LedgerUnavailable(f"Redis does not answer ({type(error).__name__})") from error
    except OutOfMemoryError as error:
        raise LedgerFull("Redis takes no writes: its memory is full") from error
    except ReadOnlyError as error:
        raise LedgerFull("Redis takes no writes: it is a replica of another") from error
    except ResponseError as error:
        if "MISCONF " not in str(error):
            raise
        raise LedgerFull("Redis takes no writes: it cannot save them, its disk is full") from error
