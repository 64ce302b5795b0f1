"""Watching a job from the outside, as a client sees it: how far it is, and how long it stood."""

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Self

import httpx2

from api.schemas import JobOut

_POLL_S = 0.05
_ANSWER_S = 2.0


class StandsStill(Exception):
    """A job did not get as far as it should in the time it had."""


class Observer:
    """Polls a job in a thread, inside a `with` block; no answer of the API is no progress."""

    def __init__(self, url: str, job_id: str) -> None:
        self._url = f"{url}/jobs/{job_id}"
        self._began = time.monotonic()
        # When each further item was seen to be finished, by the monotonic clock.
        self._moved = [self._began]
        self._job: JobOut | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    @property
    def finished(self) -> int:
        """Items that have a result."""
        return self._job.counts.succeeded + self._job.counts.failed if self._job else 0

    @property
    def over(self) -> bool:
        """Whether the job is done."""
        return self._job is not None and self._job.done

    def rest(self, at_most_s: float) -> None:
        """Wait for `at_most_s`, or until the job is done."""
        self._thread.join(at_most_s)

    def until(self, finished: int, deadline_s: float = 120) -> None:
        """Wait until so many items are finished.

        Raises:
            StandsStill: they are not after `deadline_s`.
        """
        self._wait(lambda: self.finished >= finished, deadline_s)

    def done(self, deadline_s: float = 150) -> JobOut:
        """Give the job once it is done.

        Raises:
            StandsStill: it is not after `deadline_s`.
        """
        self._wait(lambda: self.over, deadline_s)
        assert self._job
        return self._job

    def longest_stall_s(self, since: float = 0) -> float:
        """Give the longest time without progress that ended after `since`, by the monotonic clock;
        the time that passes now counts as one unless the job is done."""
        moved = [*self._moved] if self.over else [*self._moved, time.monotonic()]
        pairs = pairwise(moved)
        return max(
            (later - max(sooner, since) for sooner, later in pairs if later > since), default=0
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _wait(self, condition: Callable[[], bool], deadline_s: float) -> None:
        deadline = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > deadline:
                raise StandsStill(f"after {deadline_s:g} s: {self._job}")
            self._over.wait(_POLL_S)

    def _run(self) -> None:
        with httpx2.Client(timeout=_ANSWER_S, trust_env=False) as client:
            while not self._over.wait(_POLL_S):
                before = self.finished
                try:
                    answer = client.get(self._url, params={"results": False})
                except httpx2.TransportError:
                    continue
                if not answer.is_success:
                    continue
                self._job = JobOut.model_validate_json(answer.content)
                if self.finished > before:
                    self._moved.append(time.monotonic())
                if self._job.done:
                    return
