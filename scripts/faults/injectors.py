"""The faults: each is done to a running stack of real processes."""

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.local.stack import Stack
from worker.jobs.ledger.connection import connect
from worker.jobs.record import Lane

# On their PYTHONPATH this makes workers die of the pictures that a PictureServer poisons.
POISON_PATH = Path(__file__).parent / "poison"
AWAY_S = 8.0
PAUSE_S = 20.0
_MESSAGES_DEADLINE_S = 30.0
_ON_QUEUES = """
local count = 0
for _, queue in ipairs(KEYS) do
  local found = redis.call('LRANGE', queue, 0, -1)
  if #found > 0 then %s end
  count = count + #found
end
return count
"""
_QUEUES = [f"piqueue:{lane}" for lane in Lane]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, when `inject` is called, for as long as that takes.

    Work goes on as before within `bound_s` of its beginning. With `poisons` it is a picture in the
    middle of the job that ends every worker which decodes it.
    """

    inject: Callable[[Stack], object]
    bound_s: float = 90
    poisons: bool = False


def kill_a_worker(stack: Stack) -> None:
    """SIGKILL for one worker, as the kernel does it when memory is short."""
    _signal(stack.workers[:1], signal.SIGKILL)


def kill_all_workers(stack: Stack) -> None:
    """SIGKILL for every worker at once."""
    _signal(stack.workers, signal.SIGKILL)


def kill_api(stack: Stack) -> None:
    """SIGKILL for the API."""
    _signal([stack.api_pid], signal.SIGKILL)


def kill_redis(stack: Stack) -> None:
    """SIGKILL for Redis, which is started again with what its append-only file holds."""
    _signal([stack.redis_pid], signal.SIGKILL)


def terminate_a_worker(stack: Stack) -> None:
    """SIGTERM for one worker, as a deployment does it."""
    _signal(stack.workers[:1], signal.SIGTERM)


def reset_connections(stack: Stack) -> None:
    """Close every connection to Redis from its side."""
    with redis_of(stack) as redis:
        for kind in ("normal", "pubsub"):
            redis.client_kill_filter(_type=kind, skipme=True)


def lose_messages(stack: Stack) -> int:
    """Take what lies on the queues away, once that is something; gives how many messages."""
    return _once_there_are_messages(stack, "redis.call('DEL', queue)")


def triple_messages(stack: Stack) -> int:
    """Put what lies on the queues there twice more, once that is something; gives how many."""
    return _once_there_are_messages(
        stack, "redis.call('RPUSH', queue, unpack(found)) redis.call('RPUSH', queue, unpack(found))"
    )


@contextmanager
def redis_paused(stack: Stack) -> Iterator[None]:
    """Redis holds all connections and answers nothing while the block runs."""
    pid = stack.redis_pid
    _signal([pid], signal.SIGSTOP)
    try:
        yield
    finally:
        _signal([pid], signal.SIGCONT)


@contextmanager
def memory_full(stack: Stack) -> Iterator[None]:
    """Redis has no memory left, and evicts nothing, while the block runs."""
    with redis_of(stack) as redis:
        before = redis.config_get("maxmemory")["maxmemory"]
        redis.config_set("maxmemory", "1mb")
        try:
            yield
        finally:
            redis.config_set("maxmemory", before)


@contextmanager
def disk_full(stack: Stack) -> Iterator[None]:
    """Redis cannot lengthen its append-only file while the block runs (Linux).

    The kernel answers its writes with EFBIG, where a full disk would answer ENOSPC: what Redis
    makes of it, MISCONF, is the same, and it takes no privileges.
    """
    pid = stack.redis_pid
    assert pid is not None
    with redis_of(stack) as redis:
        folder = Path(redis.config_get("dir")["dir"]) / "appendonlydir"
    longest = max(file.stat().st_size for file in folder.iterdir())
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (longest, most))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))


def lasting(
    fault: Callable[[Stack], AbstractContextManager[None]], lasts_s: float
) -> Callable[[Stack], None]:
    """Make a fault that is over after `lasts_s`."""

    def inject(stack: Stack) -> None:
        with fault(stack):
            time.sleep(lasts_s)

    return inject


FAULTS = {
    "kill-worker": Fault(kill_a_worker),
    "kill-workers": Fault(kill_all_workers),
    "kill-api": Fault(kill_api),
    "kill-redis": Fault(kill_redis),
    "stop-redis": Fault(lasting(Stack.redis_stopped, AWAY_S)),
    "pause-redis": Fault(lasting(redis_paused, PAUSE_S)),
    "lose-messages": Fault(lose_messages),
    "triple-messages": Fault(triple_messages),
    "stop-worker": Fault(terminate_a_worker, bound_s=15),
    "fill-memory": Fault(lasting(memory_full, AWAY_S)),
    "fill-disk": Fault(lasting(disk_full, AWAY_S)),
    "reset-connections": Fault(reset_connections),
    "poison": Fault(lambda _stack: None, poisons=True),
}


def redis_of(stack: Stack) -> Any:
    """Give a client of the stack's Redis that is patient enough for a restart of it."""
    return connect(stack.redis_url, retries=20)


def _signal(pids: list[int] | list[int | None], number: signal.Signals) -> None:
    for pid in pids:
        if pid is not None:
            os.kill(pid, number)


def _once_there_are_messages(stack: Stack, act: str) -> int:
    """Run Lua on each `queue` and the messages `found` there; gives their count, 0 if none came."""
    deadline = time.monotonic() + _MESSAGES_DEADLINE_S
    with redis_of(stack) as redis:
        acting = redis.register_script(_ON_QUEUES % act)
        while not (count := int(acting(keys=_QUEUES))) and time.monotonic() < deadline:
            time.sleep(0.001)
    return count
