"""Claims a chunk, or several jobs of one upload, and scores and commits it."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice

import structlog

from model.predictor import Predictor
from worker.jobs.errors import (
    JobNotFound,
    LedgerFull,
    LedgerUnavailable,
    QueueFull,
    StorageUnavailable,
)
from worker.jobs.items import ItemResult, Rejection, RejectionCode, Stage
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.store import StoredThumbnails
from worker.jobs.storage.features import block_name, pack_blocks
from worker.jobs.traces import chunk_span, span
from worker.scoring.classify import Limits, classify
from worker.scoring.metrics import model_name
from worker.scoring.model_pool import CannotLoad
from worker.scoring.payloads import load_payloads
from worker.scoring.rescore import rescored
from worker.scoring.runtime import Runtime
from worker.scoring.thumbnails import Thumbnails

# A chunk that needs S3 while that is unavailable is tried again after this time, without a limit.
S3_RETRY_S = 10
# A chunk whose model no worker can load is tried again after this time.
NO_WORKER_RETRY_S = 2
# Jobs of one upload that are claimed together, at most; see SMALL_BYTES in redis_blobs.py.
MOST_JOBS = 32
# While Redis is full, the commit is tried again at this interval.
COMMIT_RETRY_S = 1

log = structlog.get_logger()


def run_next(runtime: Runtime) -> bool:
    """Claim what is next, score it and commit it; False if no other chunk waits."""
    # All log lines of this thread get these fields, those of Celery too.
    structlog.contextvars.clear_contextvars()
    settings, models = runtime.settings, runtime.models
    others = {key for key in models.unable if not runtime.others_unable(key)}
    warm = {model.key for model in models.warm}
    most = min(settings.batch_size, MOST_JOBS)
    limits = (settings.lease_s, settings.bulk_share, warm, others, most)
    claims = runtime.store.claim_next(*limits)
    if not claims:
        return False
    _log_of(claims[0])
    with ExitStack() as spans:
        outcomes = []
        for claim in claims:
            if not claim.first_try:
                runtime.store.renew(claim, runtime.lease_s(claim))
            runtime.metrics.claimed(claim)
            chunk = (claim.job_id, claim.chunk_index)
            outcome = spans.enter_context(chunk_span(claim.traceparent, claim.waited_s, *chunk))
            outcome |= {"model": model_name(claim.model), "attempt": claim.attempt}
            outcomes.append(outcome)
        of_claims, waits = _run_claimed(runtime, claims)
        for outcome, of_claim in zip(outcomes, of_claims, strict=True):
            outcome |= of_claim
    return waits


def _log_of(claim: Claim) -> None:
    """Let the next log lines of this thread be about a claim."""
    structlog.contextvars.bind_contextvars(job_id=claim.job_id, chunk_index=claim.chunk_index)


def _run_claimed(
    runtime: Runtime, claims: Sequence[Claim]
) -> tuple[list[dict[str, str | int]], bool]:
    """Score and commit claimed chunks.

    Gives the outcome and the counts of each for its trace, and whether another chunk may wait.
    """
    started = time.monotonic()
    try:
        with ExitStack() as leases:
            for claim in claims:
                leases.enter_context(runtime.keep_lease(claim))
            thumbnails = Thumbnails(claims)
            scored = list(zip(claims, _results(runtime, claims, thumbnails), strict=True))
            to_commit = thumbnails.store(runtime.blobs)
            with span("commit"):
                if not all(_write_part(runtime, claim, results) for claim, results in scored):
                    log.info("lease_lost")
                    return [{"outcome": "lease_lost"}] * len(claims), True
                kept = [_keep_features(runtime, *one) for one in scored]
                accepted, waits = _commit(runtime, scored, to_commit, kept)
    except CannotLoad as error:
        log.info("chunk_released", model=model_name(claims[0].model), reason=str(error))
        for claim in claims:
            _release(runtime, claim)
        return [{"outcome": "released"}] * len(claims), True
    except StorageUnavailable as error:
        for claim in claims:
            runtime.store.release(claim, S3_RETRY_S)
        log.warning("chunk_deferred", attempt=claims[0].attempt, reason=str(error))
        return [{"outcome": "deferred"}] * len(claims), True
    took_s = time.monotonic() - started
    outcomes = [
        _committed(runtime, *one, took_s) if was_first else _superseded(one[0])
        for one, was_first in zip(scored, accepted, strict=True)
    ]
    return outcomes, waits


def _superseded(claim: Claim) -> dict[str, str | int]:
    _log_of(claim)
    log.info("commit_superseded", attempt=claim.attempt)
    return {"outcome": "superseded"}


def _committed(
    runtime: Runtime, claim: Claim, results: Sequence[ItemResult], took_s: float
) -> dict[str, str | int]:
    """Do what follows the commit of a chunk."""
    _log_of(claim)
    runtime.metrics.committed(claim, claim.model, results, took_s)
    runtime.score_tally.add(claim.model.key, results)
    try:
        _discard_scored(runtime, claim, results)
        _cache_scores(runtime, claim, results)
    except (LedgerUnavailable, StorageUnavailable) as error:
        log.warning("cleanup_failed", reason=str(error))
    codes = Counter(result.rejection.code for result in results if result.rejection)
    log.info("chunk_committed", attempt=claim.attempt, items=len(results), failed=codes.total())
    failures: dict[str, str | int] = {f"failed.{code}": count for code, count in codes.items()}
    return {"outcome": "committed", "items": len(results), **failures}


def _results(
    runtime: Runtime, claims: Sequence[Claim], thumbnails: Thumbnails
) -> list[Sequence[ItemResult]]:
    """Score chunks of one model, or reject their items if no worker can score them.

    Raises:
        CannotLoad: this worker cannot load the model, but another may.
    """
    first = claims[0]
    if first.exhausted:
        attempts = f"{first.attempt - 1} attempts at this part of the job failed"
        detail = f"{attempts}; the worker's log says why"
        return [_reject_all(claim, RejectionCode.INTERNAL, detail) for claim in claims]
    model = first.model
    try:
        with runtime.models.using(model) as predictor:
            results = iter(_score(runtime, claims, predictor, thumbnails))
        return [list(islice(results, len(claim.specs))) for claim in claims]
    except CannotLoad:
        waited_s = runtime.presence.request(model)
        if waited_s < runtime.settings.model_wait_s or not runtime.others_unable(model.key):
            raise
    detail = f"no worker can load {model_name(model)}; the workers' logs say why"
    return [_reject_all(claim, RejectionCode.MODEL_ERROR, detail) for claim in claims]


def _reject_all(claim: Claim, code: RejectionCode, detail: str) -> list[ItemResult]:
    rejection = Rejection(code, Stage.INFER, True, detail)
    return [ItemResult(rejection=rejection)] * len(claim.specs)


def _score(
    runtime: Runtime, claims: Sequence[Claim], predictor: Predictor, thumbnails: Thumbnails
) -> list[ItemResult]:
    """Score chunks; one after a lost attempt item by item, to find a poison item."""
    settings, claim = runtime.settings, claims[0]
    count = sum(len(one.specs) for one in claims)
    known = rescored(runtime, claim, predictor)
    payloads = load_payloads(runtime, claims, known.keys())
    if claim.first_try:
        batch = settings.batch_size
        limits = Limits(batch, settings.max_pixels, runtime.memory, claim.keep_features)
        cached = (
            partial(runtime.cache.get, claim.job_id, claim.model.key, predictor.variant)
            if claim.use_cache and not claim.keep_features
            else None
        )
        return classify(
            payloads,
            count,
            predictor,
            limits,
            lambda _: runtime.gate.shared(),
            cached,
            thumbnails.add,
            known,
        )

    @contextmanager
    def quarantined(position: int) -> Iterator[None]:
        with runtime.gate.exclusive():
            runtime.store.checkpoint(claim, position)
            yield
            runtime.store.checkpoint(claim, None)

    limits = Limits(1, settings.max_pixels, runtime.memory, claim.keep_features)
    return classify(
        payloads, count, predictor, limits, quarantined, on_image=thumbnails.add, known=known
    )


def _release(runtime: Runtime, claim: Claim) -> None:
    """Release a chunk for another worker: at once if one may be able to score it."""
    delay_s = NO_WORKER_RETRY_S if runtime.others_unable(claim.model.key) else 0
    runtime.store.release(claim, delay_s)


def _write_part(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> bool:
    """Write the results of a chunk to S3, if its job wants it; False if its lease is lost.

    A process without S3 leaves the part to whoever writes the manifest.
    """
    if not claim.parts or runtime.parts is None:
        return True
    if not runtime.store.renew(claim, runtime.lease_s(claim)):
        return False
    try:
        model = runtime.store.model(claim.job_id)
    except JobNotFound:  # erased just now
        return False
    runtime.parts.write(claim, results, model)
    return True


def _keep_features(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> int:
    """Store the features of a chunk, if its job wants it; the scores matter more than a full disk.

    Returns the bytes that are stored.

    Raises:
        StorageUnavailable: the store does not answer.
    """
    if not claim.keep_features:
        return 0
    blocks = {
        block_name(claim.chunk_index, backbone): block
        for backbone, block in pack_blocks(results).items()
    }
    try:
        runtime.blobs.put_features(claim.job_id, blocks)
    except QueueFull as error:
        log.warning("features_not_kept", reason=str(error))
        return 0
    return sum(map(len, blocks.values()))


def _commit(
    runtime: Runtime,
    scored: Sequence[tuple[Claim, Sequence[ItemResult]]],
    thumbnails: Sequence[StoredThumbnails],
    feature_bytes: Sequence[int],
) -> tuple[list[bool], bool]:
    """Commit results as `commit_all` does; while Redis is full, keep them and try again."""
    while True:
        try:
            return runtime.store.commit_all(scored, thumbnails, feature_bytes)
        except LedgerFull as error:
            log.warning("commit_waits", reason=str(error))
            time.sleep(COMMIT_RETRY_S)


def _discard_scored(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> None:
    """Delete the uploads that have scores; the others may be retried."""
    if claim.upload is not None:  # it was in Redis, and the commit has deleted it
        return
    pairs = zip(claim.specs, results, strict=True)
    scored = [spec.id for spec, result in pairs if result.scores and spec.url is None]
    if scored:
        runtime.blobs.discard(claim.job_id, scored)


def _cache_scores(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> None:
    """Cache the scores of a job that uses the cache, unless an attempt at the chunk was lost."""
    if claim.use_cache and claim.first_try:
        for result in results:
            if result.scores and not result.cached:
                runtime.cache.put(claim.job_id, claim.model.key, result)
