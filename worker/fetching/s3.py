"""Fetches s3:// items, many at a time, with the credentials of the worker."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    NoCredentialsError,
    ReadTimeoutError,
)

from worker.fetching.session import RETRIES, TRANSIENT, Outcome, backoff_s, fetch_rejection
from worker.jobs.errors import StorageUnavailable
from worker.jobs.items import Rejection, RejectionCode
from worker.jobs.s3 import connect_s3, status_of
from worker.jobs.settings import Settings
from worker.jobs.traces import span

# Downloads that one process runs, with the payloads that wait to be taken.
CONCURRENCY = 16
READ_BYTES = 256 * 1024
# A silent request is retried after this share of the deadline.
REQUEST_SHARE = 1 / 3


class S3Fetcher:
    """Downloads objects from allowed buckets, in threads that all chunks share."""

    def __init__(self, settings: Settings) -> None:
        """Configure a fetcher from the settings, without a request to the server."""
        self._timeout_s = timeout_s = settings.fetch_timeout_s
        self._client = connect_s3(
            settings, connections=CONCURRENCY, timeout_s=timeout_s * REQUEST_SHARE, attempts=1
        )
        self._buckets = settings.s3_fetch_buckets
        self._max_bytes = settings.max_item_bytes
        self._pool = ThreadPoolExecutor(CONCURRENCY, "s3")

    @contextmanager
    def fetching(self, urls: Sequence[str]) -> Iterator[Iterator[tuple[int, Outcome]]]:
        """Start downloads; gives (position in `urls`, outcome) as they arrive, exactly one per URL.

        Each outcome that is taken frees a thread for the next download. Taking one raises
        StorageUnavailable if S3 is down. Leaving the block cancels the other downloads.
        """
        arrived: queue.SimpleQueue[tuple[int, Outcome] | BaseException] = queue.SimpleQueue()
        cancelled = threading.Event()
        taken = threading.Semaphore(0)

        def work(position: int, url: str) -> None:
            if cancelled.is_set():
                return
            with span("fetch") as attributes:
                outcome = self.fetch(url, cancelled)
                attributes["outcome"] = outcome.label
            arrived.put((position, outcome))
            # The thread stays busy until its payload is taken.
            taken.acquire()

        def outcomes() -> Iterator[tuple[int, Outcome]]:
            for _ in urls:
                outcome = arrived.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                taken.release()
                yield outcome

        def ended(future: Future[None]) -> None:
            if not future.cancelled() and (error := future.exception()):
                arrived.put(error)

        for position, url in enumerate(urls):
            # The copied context carries the caller's trace into the thread.
            in_context = partial(copy_context().run, work, position, url)
            self._pool.submit(in_context).add_done_callback(ended)
        try:
            yield outcomes()
        finally:
            cancelled.set()
            taken.release(len(urls) or 1)

    def close(self) -> None:
        """Start no further download, and let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def fetch(self, url: str, cancelled: threading.Event) -> Outcome:
        """Fetch `s3://bucket/key`, with retries until `cancelled` is set.

        Raises:
            StorageUnavailable: S3 itself is down, so the item must not fail.
        """
        started = time.monotonic()
        deadline = started + self._timeout_s
        bucket, _, key = url.removeprefix("s3://").partition("/")
        if bucket not in self._buckets:
            detail = "pictures may not come from this bucket"
            return Outcome(fetch_rejection(RejectionCode.FETCH_BLOCKED_ADDRESS, detail), 0)
        retry = 0
        while True:
            payload = self._get(bucket, key, deadline)
            outcome = Outcome(payload, round((time.monotonic() - started) * 1000))
            if isinstance(payload, bytes) or not payload.retryable:
                return outcome
            pause_s = backoff_s(retry)
            last = retry == RETRIES or time.monotonic() + pause_s >= deadline
            if last or cancelled.wait(pause_s):
                break
            retry += 1
        if cancelled.is_set():
            return outcome
        if self._is_down(bucket):
            raise StorageUnavailable(f"S3 is not available: {payload.detail}")
        if payload.code is RejectionCode.FETCH_CONNECTION:
            # S3 may have come back since then.
            payload = self._get(bucket, key, time.monotonic() + self._timeout_s)
            outcome = Outcome(payload, round((time.monotonic() - started) * 1000))
        return outcome

    def _get(self, bucket: str, key: str, deadline: float) -> bytes | Rejection:
        timed_out = fetch_rejection(
            RejectionCode.FETCH_TIMEOUT,
            f"no complete answer in {self._timeout_s:g} s",
            retryable=True,
        )
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
            payload, size = bytearray(), answer["ContentLength"]
            with answer["Body"] as body:
                while size <= self._max_bytes and (part := body.read(READ_BYTES)):
                    payload += part
                    size = max(size, len(payload))
                    if time.monotonic() > deadline:
                        return timed_out
        except ClientError as error:
            status, code = status_of(error)
            return fetch_rejection(
                RejectionCode.FETCH_HTTP_STATUS,
                f"answered {status} ({code})",
                retryable=status in TRANSIENT,
                http_status=status,
            )
        except (ConnectTimeoutError, ReadTimeoutError):
            return timed_out
        except BotoCoreError as error:
            detail = f"S3 does not answer ({type(error).__name__})"
            if isinstance(error, NoCredentialsError):
                detail = "the worker has no credentials for S3"
            return fetch_rejection(RejectionCode.FETCH_CONNECTION, detail, retryable=True)
        if size > self._max_bytes:
            detail = f"larger than {self._max_bytes:,} bytes"
            return fetch_rejection(RejectionCode.FETCH_TOO_LARGE, detail)
        return bytes(payload)

    def _is_down(self, bucket: str) -> bool:
        """Whether S3 does not answer for the bucket either."""
        try:
            self._client.head_bucket(Bucket=bucket)
        except ClientError as error:
            return status_of(error)[0] in TRANSIENT
        except BotoCoreError as error:
            return not isinstance(error, NoCredentialsError)
        return False
