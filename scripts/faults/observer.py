"""Observes a job as a client: its progress, and its longest stall."""

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Self

from piqueue import Client, Job, PiqueueApiError

_POLL_S = 0.05
_ANSWER_S = 2.0


class JobStalled(Exception):
    """A job did not progress as far as expected before its deadline."""


class Observer:
    """Polls a job in a thread, inside a `with` block; a failed request counts as no progress."""

    def __init__(self, url: str, job_id: str) -> None:
        self._url, self._job_id = url, job_id
        # When the count of finished items was seen to grow, by the monotonic clock.
        self._progress_times = [time.monotonic()]
        self._job: Job | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer")

    @property
    def finished(self) -> int:
        """Items that have a result."""
        return self._job.counts.succeeded + self._job.counts.failed if self._job else 0

    @property
    def job_done(self) -> bool:
        """Whether the job is done."""
        return self._job is not None and self._job.done

    def pause(self, seconds: float) -> None:
        """Wait for `seconds`, or until the job is done."""
        self._thread.join(seconds)

    def wait_finished(self, finished: int) -> None:
        """Wait until this many items are finished.

        Raises:
            JobStalled: they are not after two minutes.
        """
        self._wait(lambda: self.finished >= finished, 120)

    def wait_done(self, deadline_s: float = 150) -> Job:
        """Wait until the job is done, and give it.

        Raises:
            JobStalled: it is not after `deadline_s`.
        """
        self._wait(lambda: self.job_done, deadline_s)
        assert self._job
        return self._job

    def longest_stall_s(self, since: float = 0) -> float:
        """Give the longest time without progress that ended after `since`, by the monotonic clock;
        the time since the last progress counts too unless the job is done."""
        times = self._progress_times + ([] if self.job_done else [time.monotonic()])
        stalls = (end - max(start, since) for start, end in pairwise(times) if end > since)
        return max(stalls, default=0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _wait(self, condition: Callable[[], bool], deadline_s: float) -> None:
        deadline = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > deadline:
                raise JobStalled(f"after {deadline_s:g} s: {self._job}")
            self._stopped.wait(_POLL_S)

    def _run(self) -> None:
        with Client(self._url, timeout_s=_ANSWER_S, patience_s=0) as client:
            while not self._stopped.wait(_POLL_S):
                before = self.finished
                try:
                    self._job = client.job(self._job_id)
                except PiqueueApiError:
                    continue
                if self.finished > before:
                    self._progress_times.append(time.monotonic())
                if self._job.done:
                    return
