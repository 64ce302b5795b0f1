"""s3:// items to bytes, many at a time, with the worker's own credentials."""

import queue
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, Self

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    NoCredentialsError,
    ReadTimeoutError,
)

from worker.fetching.fetcher import Outcome
from worker.fetching.session import RETRIES, TRANSIENT, FetchCode, Fetched, FetchFailed, backoff_s
from worker.jobs.errors import StorageUnavailable
from worker.jobs.s3 import connect_s3, status_of
from worker.jobs.settings import Settings
from worker.jobs.traces import span

# Downloads one process runs, and payloads it holds that are not yet taken.
CONCURRENCY = 16
READ_BYTES = 256 * 1024
# A silent server is asked anew after this share of the deadline.
SILENCE = 1 / 3


class S3Fetcher:
    """Downloads of objects from allowed buckets, in threads that all chunks share."""

    def __init__(
        self, client: Any, buckets: Collection[str], timeout_s: float, max_bytes: int
    ) -> None:
        self._client = client
        self._buckets = frozenset(buckets)
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._pool = ThreadPoolExecutor(CONCURRENCY, "s3")

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connect as the settings say; nothing is asked of the server yet."""
        timeout_s = settings.fetch_timeout_s
        client = connect_s3(
            settings, connections=CONCURRENCY, timeout_s=timeout_s * SILENCE, attempts=1
        )
        return cls(client, settings.s3_fetch_buckets, timeout_s, settings.max_item_bytes)

    @contextmanager
    def fetching(self, urls: Sequence[str]) -> Iterator[Iterator[tuple[int, Outcome]]]:
        """Begin to fetch; gives (position in `urls`, outcome) as they arrive, exactly one a URL.

        Taking an outcome makes room for the next download, and raises StorageUnavailable where S3
        is out of order; leaving the block gives up the rest.
        """
        arrived: queue.SimpleQueue[tuple[int, Outcome] | BaseException] = queue.SimpleQueue()
        over = threading.Event()
        room = threading.Semaphore(0)

        def work(position: int, url: str) -> None:
            if over.is_set():
                return
            with span("fetch") as shown:
                outcome = self.fetch(url, over)
                shown["outcome"] = outcome.code if isinstance(outcome, FetchFailed) else "fetched"
            arrived.put((position, outcome))
            # This thread is the payload's place: it is free once the payload was taken.
            room.acquire()

        def taken() -> Iterator[tuple[int, Outcome]]:
            for _ in urls:
                outcome = arrived.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                room.release()
                yield outcome

        def ended(future: Future[None]) -> None:
            if not future.cancelled() and (error := future.exception()):
                arrived.put(error)

        for position, url in enumerate(urls):
            # A thread of its pool has the caller's trace so.
            work_there = partial(copy_context().run, work, position, url)
            self._pool.submit(work_there).add_done_callback(ended)
        try:
            yield taken()
        finally:
            over.set()
            room.release(len(urls) or 1)

    def close(self) -> None:
        """Begin no further download and let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def fetch(self, url: str, over: threading.Event) -> Outcome:
        """Fetch `s3://bucket/key`, trying again what may go better, until `over` is set.

        Raises:
            StorageUnavailable: S3 itself is out of order, which is no fault of the item.
        """
        started = time.monotonic()
        deadline = started + self._timeout_s
        bucket, _, key = url.removeprefix("s3://").partition("/")
        if bucket not in self._buckets:
            return FetchFailed(
                FetchCode.BLOCKED_ADDRESS, False, "pictures may not come from this bucket"
            )
        for retry in range(RETRIES + 1):
            outcome = self._get(bucket, key, deadline)
            pause_s = backoff_s(retry)
            again = isinstance(outcome, FetchFailed) and outcome.retryable
            if not again or retry == RETRIES or time.monotonic() + pause_s >= deadline:
                break
            if over.wait(pause_s):
                break
        elapsed_ms = round((time.monotonic() - started) * 1000)
        if isinstance(outcome, bytes):
            return Fetched(outcome, elapsed_ms)
        if outcome.retryable and not over.is_set() and self._away(bucket):
            raise StorageUnavailable(f"S3 is away: {outcome.detail}")
        return replace(outcome, elapsed_ms=elapsed_ms)

    def _get(self, bucket: str, key: str, deadline: float) -> bytes | FetchFailed:
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
            with answer["Body"] as body:
                if answer["ContentLength"] > self._max_bytes:
                    return self._too_large()
                return self._read(body, deadline)
        except ClientError as error:
            status, code = status_of(error)
            return FetchFailed(
                FetchCode.HTTP_STATUS,
                status in TRANSIENT,
                f"answered {status} ({code})",
                http_status=status,
            )
        except (ConnectTimeoutError, ReadTimeoutError):
            return self._timed_out()
        except NoCredentialsError:
            detail = "the worker has no credentials for S3"
            return FetchFailed(FetchCode.CONNECTION, True, detail)
        except BotoCoreError as error:
            detail = f"S3 does not answer ({type(error).__name__})"
            return FetchFailed(FetchCode.CONNECTION, True, detail)

    def _away(self, bucket: str) -> bool:
        """Whether S3 does not answer for the bucket either."""
        try:
            self._client.head_bucket(Bucket=bucket)
        except ClientError as error:
            return status_of(error)[0] in TRANSIENT
        except NoCredentialsError:
            return False
        except BotoCoreError:
            return True
        return False

    def _read(self, body: Any, deadline: float) -> bytes | FetchFailed:
        payload = bytearray()
        while part := body.read(READ_BYTES):
            payload += part
            if len(payload) > self._max_bytes:
                return self._too_large()
            if time.monotonic() > deadline:
                return self._timed_out()
        return bytes(payload)

    def _too_large(self) -> FetchFailed:
        return FetchFailed(FetchCode.TOO_LARGE, False, f"larger than {self._max_bytes:,} bytes")

    def _timed_out(self) -> FetchFailed:
        detail = f"no complete answer in {self._timeout_s:g} s"
        return FetchFailed(FetchCode.TIMEOUT, True, detail)
