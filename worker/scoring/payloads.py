"""Loads the payloads of a chunk's items from uploads, URLs and S3."""

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from worker.fetching.session import Outcome
from worker.jobs.items import Rejection, RejectionCode, Stage
from worker.jobs.ledger.claims import Claim
from worker.scoring.classify import LoadedPayload
from worker.scoring.runtime import Runtime

WORKER_LOST = Rejection(
    RejectionCode.WORKER_LOST, Stage.INFER, True, "a worker process died at this picture"
)
UPLOAD_GONE = Rejection(
    RejectionCode.INTERNAL, Stage.FETCH, False, "the uploaded bytes are gone: submit it again"
)
S3_SCHEME = "s3://"
S3_NOT_CONFIGURED = Rejection(
    RejectionCode.FETCH_BLOCKED_ADDRESS,
    Stage.FETCH,
    True,
    "this worker is not configured to fetch from S3",
)


def load_payloads(
    runtime: Runtime, claims: Sequence[Claim], leave_out: Collection[int]
) -> Iterator[LoadedPayload]:
    """Give the items of a chunk as their bytes arrive: poison items first, uploads, then URLs.

    The positions in `leave_out` are not loaded.

    Several claims are jobs of one upload, which came with the claim.
    """
    claim = claims[0]
    if claim.upload is not None and not claim.quarantined:
        for position, one in enumerate(claims):
            yield LoadedPayload(position, UPLOAD_GONE if one.upload is None else one.upload)
        return
    urls: dict[int, str] = {}
    uploads: dict[int, str] = {}
    for position, spec in enumerate(claim.specs):
        if position in leave_out:
            continue
        if position in claim.quarantined:
            yield LoadedPayload(position, WORKER_LOST)
        elif spec.url is not None:
            urls[position] = spec.url
        else:
            uploads[position] = spec.id
    if uploads:
        payloads = runtime.blobs.get(claim.job_id, uploads.values())
        for position, payload in zip(uploads, payloads, strict=True):
            yield LoadedPayload(position, UPLOAD_GONE if payload is None else payload)
    if not urls:
        return
    outcomes = _fetch(runtime, urls)
    chunk = runtime.claimed[claim.key]
    while True:
        chunk.waiting_since = time.monotonic()
        try:
            position, outcome = next(outcomes)
        except StopIteration:
            return
        finally:
            chunk.waiting_since = math.inf
        yield LoadedPayload(position, outcome.payload, outcome.elapsed_ms)


def _fetch(runtime: Runtime, urls: Mapping[int, str]) -> Iterator[tuple[int, Outcome]]:
    """Fetch URLs given by position; those of S3 are fetched beside the others."""
    on_s3 = [position for position, url in urls.items() if url.startswith(S3_SCHEME)]
    others = [position for position, url in urls.items() if not url.startswith(S3_SCHEME)]
    with ExitStack() as fetching:
        objects: Iterable[tuple[int, Outcome]] = ()
        if on_s3 and runtime.s3_fetcher is None:
            objects = enumerate([Outcome(S3_NOT_CONFIGURED, 0)] * len(on_s3))
        elif on_s3 and runtime.s3_fetcher is not None:
            s3_urls = [urls[position] for position in on_s3]
            objects = fetching.enter_context(runtime.s3_fetcher.fetching(s3_urls))
        for order, outcome in runtime.fetcher.fetch_all([urls[position] for position in others]):
            yield others[order], outcome
        for order, outcome in objects:
            yield on_s3[order], outcome
