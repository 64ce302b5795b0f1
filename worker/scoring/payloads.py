"""The bytes of a chunk's items, each as it comes: from uploads, from URLs, from S3."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack

from worker.fetching.fetcher import FetchCode, FetchFailed, Outcome
from worker.jobs.items import Rejection, RejectionCode, Stage
from worker.jobs.ledger.claims import Claim
from worker.scoring.classify import LoadedPayload
from worker.scoring.runtime import Held, Runtime

WORKER_LOST = Rejection(
    RejectionCode.WORKER_LOST, Stage.INFER, True, "a worker process died at this picture"
)
UPLOAD_GONE = Rejection(
    RejectionCode.INTERNAL, Stage.FETCH, False, "the uploaded bytes are gone: submit it again"
)
S3_SCHEME = "s3://"
BUCKETS_UNKNOWN = FetchFailed(
    FetchCode.BLOCKED_ADDRESS, True, "this worker is not set up to fetch from S3"
)


def arrivals(runtime: Runtime, claim: Claim) -> Iterator[LoadedPayload]:
    """Give each item of a chunk as its bytes come: lost ones first, then uploads, then URLs."""
    urls: dict[int, str] = {}
    uploads: dict[int, str] = {}
    for position, spec in enumerate(claim.specs):
        if position in claim.quarantined:
            yield LoadedPayload(position, WORKER_LOST)
        elif spec.url is not None:
            urls[position] = spec.url
        else:
            uploads[position] = spec.id
    payloads = runtime.blobs.get(claim.job_id, uploads.values())
    for position, payload in zip(uploads, payloads, strict=True):
        yield LoadedPayload(position, UPLOAD_GONE if payload is None else payload)
    held = runtime.held[claim.job_id, claim.chunk_index]
    for position, outcome in _awaited(held, _fetched(runtime, urls)):
        if isinstance(outcome, FetchFailed):
            payload_or_not: bytes | Rejection = Rejection(
                RejectionCode(outcome.code),
                Stage.FETCH,
                outcome.retryable,
                outcome.detail,
                outcome.http_status,
            )
        else:
            payload_or_not = outcome.payload
        yield LoadedPayload(position, payload_or_not, outcome.elapsed_ms)


def _awaited(held: Held, outcomes: Iterator[tuple[int, Outcome]]) -> Iterator[tuple[int, Outcome]]:
    """Note since when the next outcome is waited for."""
    while True:
        held.waiting_since = time.monotonic()
        try:
            outcome = next(outcomes)
        except StopIteration:
            return
        finally:
            held.waiting_since = math.inf
        yield outcome


def _fetched(runtime: Runtime, urls: Mapping[int, str]) -> Iterator[tuple[int, Outcome]]:
    """Fetch URLs given by position, those of S3 and the others side by side."""
    on_s3 = [position for position, url in urls.items() if url.startswith(S3_SCHEME)]
    others = [position for position, url in urls.items() if not url.startswith(S3_SCHEME)]
    with ExitStack() as fetching:
        objects: Iterable[tuple[int, Outcome]] = ()
        if on_s3 and runtime.s3_fetcher is None:
            objects = ((order, BUCKETS_UNKNOWN) for order in range(len(on_s3)))
        elif on_s3 and runtime.s3_fetcher is not None:
            found = [urls[position] for position in on_s3]
            objects = fetching.enter_context(runtime.s3_fetcher.fetching(found))
        for order, outcome in runtime.fetcher.fetch_all([urls[position] for position in others]):
            yield others[order], outcome
        for order, outcome in objects:
            yield on_s3[order], outcome
