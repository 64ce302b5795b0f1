"""The pulse of a worker process: leases, heartbeat and sweep in one thread, and its watchdog."""

import os
import threading
import time

import structlog

from worker.jobs.errors import LedgerFull, LedgerUnavailable
from worker.scoring.runtime import Runtime
from worker.upkeep.recovery import sweep

BEAT_S = 2.5
SWEEP_EVERY_S = 5
# Celery's event loop ticks every second or so; one that stood still this long is deaf.
LOOP_SILENT_S = 90
EXIT_STUCK = 70

log = structlog.get_logger()


class Heartbeat:
    """Beats until stopped; ends the process when nothing in it moves any more."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # Three beats a lease, so that one that is late costs nothing.
        self._beat_s = min(BEAT_S, runtime.settings.lease_s / 3)
        self._stopping = threading.Event()
        self._loop_ticked = time.monotonic()
        self._beat_ended = time.monotonic()
        # While Redis is away Celery's loop rightly stands still: it waits to connect again.
        self._redis_away = time.monotonic()
        self._threads = [
            threading.Thread(target=run, name=run.__name__, daemon=True)
            for run in (self._beat_forever, self._watch_forever)
        ]

    def start(self) -> None:
        """Beat once, so that the worker is known at once, then in a thread.

        Where Redis takes no writes the next beats will tell of it.
        """
        try:
            self._runtime.workers.heartbeat(self._runtime.worker_id, self._runtime.slots)
        except LedgerFull as error:
            log.warning("beat_missed", reason=str(error))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads and sign off."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=BEAT_S)
        try:
            self._runtime.workers.forget(self._runtime.worker_id)
        except LedgerUnavailable as error:
            log.warning("sign_off_missed", reason=str(error))

    def loop_tick(self) -> None:
        """Hear that Celery's event loop is alive."""
        self._loop_ticked = time.monotonic()

    def _beat_forever(self) -> None:
        while not self._stopping.wait(self._beat_s):
            try:
                self._beat()
            except LedgerUnavailable as error:
                log.warning("beat_missed", reason=str(error))
                self._redis_away = time.monotonic()
            self._beat_ended = time.monotonic()

    def _beat(self) -> None:
        runtime = self._runtime
        for held in list(runtime.held.values()):
            runtime.store.renew(held.claim, runtime.lease_s(held.claim))
        runtime.workers.heartbeat(runtime.worker_id, runtime.slots)
        if runtime.workers.elect_recovery_leader(runtime.worker_id, SWEEP_EVERY_S):
            sweep(runtime.store, runtime.bell)

    def _watch_forever(self) -> None:
        while not self._stopping.wait(BEAT_S):
            if reason := self._stuck():
                log.critical("worker_stuck", reason=reason)
                os._exit(EXIT_STUCK)

    def _stuck(self) -> str | None:
        now = time.monotonic()
        if now - max(self._loop_ticked, self._redis_away) > LOOP_SILENT_S:
            return "the event loop stands still"
        if now - self._beat_ended > LOOP_SILENT_S + self._runtime.settings.lease_s:
            return "the pulse stands still"
        oldest = min((held.since for held in list(self._runtime.held.values())), default=now)
        if now - oldest > self._runtime.settings.chunk_deadline_s:
            return "a chunk passed its deadline"
        return None
