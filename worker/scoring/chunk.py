"""Runs one chunk: claims, scores and commits it."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import structlog

from model.predictor import Predictor
from worker.jobs.errors import JobNotFound, LedgerFull, LedgerUnavailable, StorageUnavailable
from worker.jobs.items import ItemResult, Rejection, RejectionCode, Stage
from worker.jobs.ledger.claims import Claim
from worker.jobs.traces import chunk_span, span
from worker.scoring.classify import Limits, classify
from worker.scoring.metrics import model_name
from worker.scoring.model_pool import CannotLoad
from worker.scoring.payloads import load_payloads
from worker.scoring.runtime import Runtime

# A chunk that needs S3 while that is unavailable is tried again after this time, without a limit.
S3_RETRY_S = 10
# A chunk whose model no worker can load is tried again after this time.
NO_WORKER_RETRY_S = 2
# While Redis is full, the commit is tried again at this interval.
COMMIT_RETRY_S = 1

log = structlog.get_logger()


def run_next_chunk(runtime: Runtime) -> bool:
    """Claim the next chunk, score it and commit it; False if none waits."""
    # All log lines of this thread get these fields, those of Celery too.
    structlog.contextvars.clear_contextvars()
    settings, models = runtime.settings, runtime.models
    others = {key for key in models.unable if not runtime.others_unable(key)}
    warm = {model.key for model in models.warm}
    claim = runtime.store.claim_next(settings.lease_s, settings.bulk_share, warm, others)
    if claim is None:
        return False
    job_id, chunk_index = claim.job_id, claim.chunk_index
    structlog.contextvars.bind_contextvars(job_id=job_id, chunk_index=chunk_index)
    if not claim.first_try:
        runtime.store.renew(claim, runtime.lease_s(claim))
    runtime.metrics.claimed(claim)
    with chunk_span(claim.traceparent, claim.waited_s, job_id, chunk_index) as attributes:
        attributes |= {"model": model_name(claim.model), "attempt": claim.attempt}
        attributes |= _run_claimed(runtime, claim)
    return True


def _run_claimed(runtime: Runtime, claim: Claim) -> dict[str, str | int]:
    """Score and commit a claimed chunk; gives the outcome and the counts for its trace."""
    started = time.monotonic()
    try:
        with runtime.keep_lease(claim):
            results = _results(runtime, claim)
            with span("commit"):
                if claim.parts and not _write_part(runtime, claim, results):
                    log.info("lease_lost")
                    return {"outcome": "lease_lost"}
                committed = _commit(runtime, claim, results)
    except CannotLoad as error:
        log.info("chunk_released", model=model_name(claim.model), reason=str(error))
        _release(runtime, claim)
        return {"outcome": "released"}
    except StorageUnavailable as error:
        runtime.store.release(claim, S3_RETRY_S)
        log.warning("chunk_deferred", attempt=claim.attempt, reason=str(error))
        return {"outcome": "deferred"}
    if not committed:
        log.info("commit_superseded", attempt=claim.attempt)
        return {"outcome": "superseded"}
    runtime.metrics.committed(claim, claim.model, results, time.monotonic() - started)
    try:
        _discard_scored(runtime, claim, results)
        _cache_scores(runtime, claim, results)
    except (LedgerUnavailable, StorageUnavailable) as error:
        log.warning("cleanup_failed", reason=str(error))
    codes = Counter(result.rejection.code for result in results if result.rejection)
    log.info("chunk_committed", attempt=claim.attempt, items=len(results), failed=codes.total())
    failures: dict[str, str | int] = {f"failed.{code}": count for code, count in codes.items()}
    return {"outcome": "committed", "items": len(results), **failures}


def _results(runtime: Runtime, claim: Claim) -> list[ItemResult]:
    """Score a chunk, or reject its items if no worker can score them.

    Raises:
        CannotLoad: this worker cannot load the model, but another may.
    """
    if claim.exhausted:
        attempts = f"{claim.attempt - 1} attempts at this part of the job failed"
        return _reject_all(claim, RejectionCode.INTERNAL, f"{attempts}; the worker's log says why")
    model = claim.model
    try:
        with runtime.models.using(model) as predictor:
            return _score(runtime, claim, predictor)
    except CannotLoad:
        waited_s = runtime.presence.request(model)
        if waited_s < runtime.settings.model_wait_s or not runtime.others_unable(model.key):
            raise
    detail = f"no worker can load {model_name(model)}; the workers' logs say why"
    return _reject_all(claim, RejectionCode.MODEL_ERROR, detail)


def _reject_all(claim: Claim, code: RejectionCode, detail: str) -> list[ItemResult]:
    rejection = Rejection(code, Stage.INFER, True, detail)
    return [ItemResult(rejection=rejection)] * len(claim.specs)


def _score(runtime: Runtime, claim: Claim, predictor: Predictor) -> list[ItemResult]:
    """Score a chunk; after a lost attempt one item at a time, to find a poison item."""
    settings = runtime.settings
    payloads, count = load_payloads(runtime, claim), len(claim.specs)
    if claim.first_try:
        limits = Limits(settings.batch_size, settings.max_pixels, runtime.memory)
        cached = (
            partial(runtime.cache.get, claim.job_id, claim.model.key, predictor.variant)
            if claim.use_cache
            else None
        )
        return classify(payloads, count, predictor, limits, lambda _: runtime.gate.shared(), cached)

    @contextmanager
    def quarantined(position: int) -> Iterator[None]:
        with runtime.gate.exclusive():
            runtime.store.checkpoint(claim, position)
            yield
            runtime.store.checkpoint(claim, None)

    limits = Limits(1, settings.max_pixels, runtime.memory)
    return classify(payloads, count, predictor, limits, quarantined)


def _release(runtime: Runtime, claim: Claim) -> None:
    """Release a chunk for another worker: at once if one may be able to score it."""
    delay_s = NO_WORKER_RETRY_S if runtime.others_unable(claim.model.key) else 0
    runtime.wake_ups.send(runtime.store.release(claim, delay_s))


def _write_part(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> bool:
    """Write the results of a chunk to S3; False if the lease of the chunk is lost.

    A process without S3 leaves the part to whoever writes the manifest.
    """
    if runtime.parts is None:
        return True
    if not runtime.store.renew(claim, runtime.lease_s(claim)):
        return False
    try:
        model = runtime.store.model(claim.job_id)
    except JobNotFound:  # erased just now
        return False
    runtime.parts.write(claim, results, model)
    return True


def _commit(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> bool:
    """Commit results; while Redis is full, keep them and try again."""
    while True:
        try:
            return runtime.store.commit(claim, results)
        except LedgerFull as error:
            log.warning("commit_waits", reason=str(error))
            time.sleep(COMMIT_RETRY_S)


def _discard_scored(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> None:
    """Delete the uploads that have scores; the others may be retried."""
    pairs = zip(claim.specs, results, strict=True)
    scored = [spec.id for spec, result in pairs if result.scores and spec.url is None]
    runtime.blobs.discard(claim.job_id, scored)


def _cache_scores(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> None:
    """Cache the scores of a job that uses the cache, unless an attempt at the chunk was lost."""
    if claim.use_cache and claim.first_try:
        for result in results:
            if result.scores and not result.cached:
                runtime.cache.put(claim.job_id, claim.model.key, result)
