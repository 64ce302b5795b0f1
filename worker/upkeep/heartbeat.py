"""The heartbeat of a worker process, and a watchdog."""

import faulthandler
import os
import time

import structlog

from model.images.decode import reads_heic
from worker.jobs.errors import LedgerFull, LedgerUnavailable
from worker.scoring.runtime import Runtime
from worker.upkeep.periodic import PeriodicThread

HEARTBEAT_S = 2.5
# Celery's event loop ticks once a second; after this time without a tick it counts as stuck.
LOOP_SILENT_S = 90
EXIT_STUCK = 70
# C code that holds the GIL for this long, such as a decoder, ends the process.
GIL_HELD_S = 30
STDERR_FD = 2

log = structlog.get_logger()


class Heartbeat(PeriodicThread):
    """Sends heartbeats until stopped; ends the process if a part of it is stuck."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__("heartbeat", HEARTBEAT_S, self._send, stop_s=HEARTBEAT_S)
        self._watchdog = PeriodicThread(
            "watchdog", HEARTBEAT_S, self._exit_if_stuck, stop_s=HEARTBEAT_S
        )
        self._runtime = runtime
        self._reads_heic = reads_heic()
        self._loop_ticked_at = self._heartbeat_ended_at = time.monotonic()
        # While Redis is unavailable, Celery's loop waits to connect again and does not tick.
        self._redis_failed_at = time.monotonic()

    def start(self) -> None:
        """Register the worker at once, then start the threads.

        A Redis that takes no writes does not stop the start; the next heartbeats report it.
        """
        try:
            self._report_alive()
        except LedgerFull as error:
            log.warning("heartbeat_missed", reason=str(error))
        # At once: the first picture may block the interpreter before these threads run.
        self._exit_if_stuck()
        super().start()
        self._watchdog.start()

    def stop(self) -> None:
        """End the threads and deregister the worker."""
        self._watchdog.stop()
        faulthandler.cancel_dump_traceback_later()
        super().stop()
        try:
            self._runtime.workers.forget(self._runtime.worker_id)
            self._add_scores()
        except LedgerUnavailable as error:
            log.warning("deregistration_failed", reason=str(error))

    def loop_tick(self) -> None:
        """Record that Celery's event loop runs."""
        self._loop_ticked_at = time.monotonic()

    def _send(self) -> None:
        try:
            self._report_alive()
            self._add_scores()
        except LedgerUnavailable as error:
            log.warning("heartbeat_missed", reason=str(error))
            self._redis_failed_at = time.monotonic()
        self._heartbeat_ended_at = time.monotonic()

    def _report_alive(self) -> None:
        worker_id, slots = self._runtime.worker_id, self._runtime.slots
        self._runtime.workers.heartbeat(worker_id, slots, reads_heic=self._reads_heic)

    def _add_scores(self) -> None:
        counts = self._runtime.score_tally.take()
        try:
            self._runtime.score_days.add(counts)
        except LedgerUnavailable:
            self._runtime.score_tally.give_back(counts)
            raise

    def _exit_if_stuck(self) -> None:
        # The timer of faulthandler needs no GIL; it ends the process unless this thread runs again.
        faulthandler.dump_traceback_later(GIL_HELD_S, exit=True, file=STDERR_FD)
        if reason := self._stuck():
            log.critical("worker_stuck", reason=reason)
            os._exit(EXIT_STUCK)

    def _stuck(self) -> str | None:
        now = time.monotonic()
        if now - max(self._loop_ticked_at, self._redis_failed_at) > LOOP_SILENT_S:
            return "the event loop does not respond"
        if now - self._heartbeat_ended_at > LOOP_SILENT_S + self._runtime.settings.lease_s:
            return "the heartbeat does not respond"
        oldest = min((chunk.since for chunk in list(self._runtime.claimed.values())), default=now)
        if now - oldest > self._runtime.settings.chunk_deadline_s:
            return "a chunk passed its deadline"
        return None
