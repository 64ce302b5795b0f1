"""Fault injectors: each disturbs a running stack of real processes."""

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piqueue import Client
from scripts.faults.relay import RelayedStack
from scripts.faults.sentinel import SentinelStack
from scripts.local.stack import Stack
from scripts.local.supervised_process import StartFailed
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.workers import Workers
from worker.jobs.wake_up import QUEUE

# On their PYTHONPATH, kills workers that decode a picture that a PictureServer poisoned.
POISON_PATH = Path(__file__).parent / "poison"
OUTAGE_S = 8.0
PAUSE_S = 20.0
FREEZE_S = 60.0
BLACK_HOLE_S = 45.0  # longer than a lease
STORM_KILLS, STORM_PERIOD_S = 12, 2.5
# What a torn write leaves out of the append-only file: several commands.
_TRUNCATED_BYTES = 1000
_RESTART_S = 60.0
_POLL_S = 0.02
_MESSAGES_DEADLINE_S = 30.0
_ON_QUEUES = """
local count = 0
for _, queue in ipairs(KEYS) do
  local messages = redis.call('LRANGE', queue, 0, -1)
  if #messages > 0 then %s end
  count = count + #messages
end
return count
"""
_QUEUES = [f"piqueue:{QUEUE}"]


@dataclass(frozen=True)
class Fault:
    """A fault that lasts as long as the call of `inject`, into a stack of the class `stack`.

    The normal rate is back within `bound_s` of its start. With `poisons` the fault is a picture in
    the middle of the job that kills every worker that decodes it.
    """

    inject: Callable[[Any], object]
    bound_s: float = 90
    poisons: bool = False
    stack: type[Stack] = Stack


def kill_a_worker(stack: Stack) -> None:
    """Send SIGKILL to one worker, as the kernel does when memory runs out."""
    _signal(stack.workers[:1], signal.SIGKILL)


def kill_all_workers(stack: Stack) -> None:
    """Send SIGKILL to all workers at once."""
    _signal(stack.workers, signal.SIGKILL)


def storm_of_kills(stack: Stack) -> None:
    """Send SIGKILL to one worker after the other, in turn, for half a minute."""
    for number in range(STORM_KILLS):
        _signal(stack.workers[number % 2 :][:1], signal.SIGKILL)
        time.sleep(STORM_PERIOD_S)


def restart_everything(stack: Stack) -> None:
    """Send SIGTERM to one process after the other, each once the one before it is replaced."""
    with Client(stack.url) as client, redis_of(stack) as redis:
        live, workers = Workers(redis), stack.workers
        for worker in workers:
            before = live.live().keys()
            _signal([worker], signal.SIGTERM)
            _wait_until(lambda before=before: live.live().keys() - before, "the worker")  # type: ignore[misc]
        api, server = stack.api_pid, stack.redis_pid
        _signal([api], signal.SIGTERM)
        _wait_until(lambda: stack.api_pid not in (None, api) and client.ready(), "the API")
        _signal([server], signal.SIGTERM)
        _wait_until(lambda: stack.redis_pid not in (None, server) and client.ready(), "Redis")


def kill_api(stack: Stack) -> None:
    """Send SIGKILL to the API."""
    _signal([stack.api_pid], signal.SIGKILL)


def kill_redis(stack: Stack) -> None:
    """Send SIGKILL to Redis, which restarts with what its append-only file contains."""
    _signal([stack.redis_pid], signal.SIGKILL)


def truncate_append_only_file(stack: Stack) -> None:
    """Kill Redis and remove the end of its append-only file before it starts again."""
    folder = _append_only_folder(stack)
    with stack.redis_stopped(grace_s=0):
        newest = max(folder.glob("*.incr.aof"), key=lambda file: file.stat().st_mtime)
        os.truncate(newest, max(0, newest.stat().st_size - _TRUNCATED_BYTES))


def fail_over(stack: SentinelStack) -> None:
    """Kill the primary; once its replica has replaced it, start it again as a replica."""
    stack.service.kill_primary()
    stack.service.rejoin()


def terminate_a_worker(stack: Stack) -> None:
    """Send SIGTERM to one worker, as a deployment does."""
    _signal(stack.workers[:1], signal.SIGTERM)


def reset_connections(stack: Stack) -> None:
    """Make Redis close every connection."""
    with redis_of(stack) as redis:
        for kind in ("normal", "pubsub"):
            redis.client_kill_filter(_type=kind, skipme=True)


def lose_messages(stack: Stack) -> int:
    """Delete the messages on the queues as soon as there are any; gives their count."""
    return _act_on_messages(stack, "redis.call('DEL', queue)")


def triple_messages(stack: Stack) -> int:
    """Repeat the messages on the queues twice, as soon as there are any; gives their count.

    Busy workers leave messages on their queue, so that repeated injections meet those of the
    earlier ones: no more than the first thousand of a queue are repeated.
    """
    repeat = "redis.call('RPUSH', queue, unpack(messages, 1, math.min(#messages, 1000))) "
    return _act_on_messages(stack, repeat * 2)


@contextmanager
def redis_paused(stack: Stack) -> Iterator[None]:
    """Make Redis keep all connections and answer nothing while the block runs."""
    with _frozen(stack.redis_pid):
        yield


@contextmanager
def worker_frozen(stack: Stack) -> Iterator[None]:
    """Stop one worker where it is while the block runs, as a host that suspends it does."""
    with _frozen(stack.workers[0]):
        yield


@contextmanager
def black_hole(stack: RelayedStack) -> Iterator[None]:
    """Deliver nothing between one worker and Redis while the block runs."""
    with stack.relay.silent():
        yield


@contextmanager
def memory_full(stack: Stack) -> Iterator[None]:
    """Leave Redis no free memory, without eviction, while the block runs."""
    with redis_of(stack) as redis:
        before = redis.config_get("maxmemory")["maxmemory"]
        redis.config_set("maxmemory", "1mb")
        try:
            yield
        finally:
            redis.config_set("maxmemory", before)


@contextmanager
def disk_full(stack: Stack) -> Iterator[None]:
    """Keep Redis from extending its append-only file while the block runs (Linux).

    The kernel answers its writes with EFBIG instead of the ENOSPC of a full disk: Redis answers
    clients with MISCONF for both, once a write has failed, and this one needs no privileges.
    """
    pid = stack.redis_pid
    assert pid is not None
    largest = max(file.stat().st_size for file in _append_only_folder(stack).iterdir())
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def lasting(
    fault: Callable[[Any], AbstractContextManager[None]], duration_s: float
) -> Callable[[Stack], None]:
    """Make an injector of a fault that ends after `duration_s`."""

    def inject(stack: Stack) -> None:
        with fault(stack):
            time.sleep(duration_s)

    return inject


FAULTS = {
    "kill-worker": Fault(kill_a_worker),
    "kill-workers": Fault(kill_all_workers),
    "kill-storm": Fault(storm_of_kills),
    "freeze-worker": Fault(lasting(worker_frozen, FREEZE_S)),
    "black-hole": Fault(lasting(black_hole, BLACK_HOLE_S), stack=RelayedStack),
    "kill-api": Fault(kill_api),
    "kill-redis": Fault(kill_redis),
    "truncate-aof": Fault(truncate_append_only_file),
    "fail-over": Fault(fail_over, stack=SentinelStack),
    "stop-redis": Fault(lasting(Stack.redis_stopped, OUTAGE_S)),
    "pause-redis": Fault(lasting(redis_paused, PAUSE_S)),
    "lose-messages": Fault(lose_messages),
    "triple-messages": Fault(triple_messages),
    "stop-worker": Fault(terminate_a_worker, bound_s=15),
    "fill-memory": Fault(lasting(memory_full, OUTAGE_S)),
    "fill-disk": Fault(lasting(disk_full, OUTAGE_S)),
    "restart-all": Fault(restart_everything),
    "reset-connections": Fault(reset_connections),
    "poison": Fault(lambda _stack: None, poisons=True),
}


def redis_of(stack: Stack) -> Any:
    """Connect to the Redis of a stack; the client waits through a restart of it."""
    return connect(stack.redis_url, retries=20)


def _signal(pids: list[int] | list[int | None], number: signal.Signals) -> None:
    for pid in pids:
        if pid is not None:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(pid, number)


@contextmanager
def _frozen(pid: int | None) -> Iterator[None]:
    _signal([pid], signal.SIGSTOP)
    try:
        yield
    finally:
        _signal([pid], signal.SIGCONT)


def _append_only_folder(stack: Stack) -> Path:
    with redis_of(stack) as redis:
        return Path(redis.config_get("dir")["dir"]) / "appendonlydir"


def _wait_until(back: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _RESTART_S
    while not back():
        if time.monotonic() > deadline:
            raise StartFailed(f"{what} is not back {_RESTART_S:.0f} s after SIGTERM")
        time.sleep(_POLL_S)


def _act_on_messages(stack: Stack, act: str) -> int:
    """Run Lua for each `queue` with its `messages`; gives their count, 0 if none came in time."""
    deadline = time.monotonic() + _MESSAGES_DEADLINE_S
    with redis_of(stack) as redis:
        script = redis.register_script(_ON_QUEUES % act)
        while not (count := int(script(keys=_QUEUES))) and time.monotonic() < deadline:
            time.sleep(0.001)
    return count
