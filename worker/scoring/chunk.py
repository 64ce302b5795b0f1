"""The run of one chunk: claim, score, commit, ring for the next."""

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
from worker.scoring.payloads import arrivals
from worker.scoring.runtime import Runtime

# A chunk that needs S3 while that is away is tried again after this time, as often as it takes.
S3_AWAY_S = 10
# A chunk whose model this worker cannot load is handed on after a moment, so that the message is
# not here again before another worker looks; where none can load it, it is tried again later.
HAND_ON_S = 0.2
NOBODY_CAN_S = 2
# What is scored already is written down as soon as a full Redis takes it, asked this often.
FULL_AGAIN_S = 1

log = structlog.get_logger()


def run_chunk(runtime: Runtime, job_id: str, chunk_index: int) -> None:
    """Claim a chunk, score it, commit it, ring for the next; a doubled message does nothing."""
    claim = runtime.store.claim(job_id, chunk_index, runtime.settings.lease_s)
    if claim is None:
        log.debug("chunk_not_ours")
        return
    if not claim.first_try:
        runtime.store.renew(claim, runtime.lease_s(claim))
    runtime.metrics.claimed(claim)
    with chunk_span(claim.traceparent, claim.waited_s, job_id, chunk_index) as shown:
        shown |= {"model": model_name(claim.model), "attempt": claim.attempt}
        shown |= _run_claimed(runtime, claim)


def _run_claimed(runtime: Runtime, claim: Claim) -> dict[str, str | int]:
    """Do what a claim asks for; gives the outcome and counts that its trace shows."""
    started = time.monotonic()
    try:
        with runtime.holding(claim):
            results = _give_up(claim) if claim.exhausted else _scored(runtime, claim)
            with span("commit"):
                if claim.parts and not _write_part(runtime, claim, results):
                    log.info("lease_lost")
                    return {"outcome": "lease_lost"}
                ring = _commit(runtime, claim, results)
    except CannotLoad as error:
        log.info("chunk_left", model=model_name(claim.model), reason=str(error))
        _leave(runtime, claim)
        return {"outcome": "left"}
    except StorageUnavailable as error:
        runtime.store.defer(claim, S3_AWAY_S)
        log.warning("chunk_deferred", attempt=claim.attempt, reason=str(error))
        return {"outcome": "deferred"}
    if ring is None:
        log.info("chunk_came_second", attempt=claim.attempt)
        return {"outcome": "came_second"}
    runtime.bell.ring(claim.job_id, ring, claim.lane)
    runtime.metrics.committed(claim, claim.model, results, time.monotonic() - started)
    try:
        _discard_scored(runtime, claim, results)
        _remember(runtime, claim, results)
    except (LedgerUnavailable, StorageUnavailable) as error:
        log.warning("not_tidied_up", reason=str(error))
    codes = Counter(result.rejection.code for result in results if result.rejection)
    log.info("chunk_committed", attempt=claim.attempt, items=len(results), failed=codes.total())
    failures: dict[str, str | int] = {f"failed.{code}": count for code, count in codes.items()}
    return {"outcome": "committed", "items": len(results), **failures}


def _write_part(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> bool:
    """Write the results of a chunk to S3; False when the chunk is another worker's by now.

    Where this process cannot, the part is written with the manifest.
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


def _commit(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> list[int] | None:
    """Write results down, waiting while Redis is full: what was scored is not thrown away."""
    while True:
        try:
            return runtime.store.commit(claim, results)
        except LedgerFull as error:
            log.warning("commit_waits", reason=str(error))
            time.sleep(FULL_AGAIN_S)


def _discard_scored(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> None:
    """Forget the uploads that have scores; the others may be tried again."""
    pairs = zip(claim.specs, results, strict=True)
    scored = [spec.id for spec, result in pairs if result.scores and spec.url is None]
    runtime.blobs.discard(claim.job_id, scored)


def _remember(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> None:
    """Keep the scores of a chunk for jobs that use the cache, unless it is itself suspect."""
    if claim.use_cache and claim.first_try:
        for result in results:
            if result.scores and not result.cached:
                runtime.cache.put(claim.model.key, result)


def _scored(runtime: Runtime, claim: Claim) -> list[ItemResult]:
    """Score a chunk, or reject its items where no live worker has been able to for long.

    Raises:
        CannotLoad: this worker cannot, and another may.
    """
    model = claim.model
    try:
        with runtime.models.using(model) as predictor:
            return _score(runtime, claim, predictor)
    except CannotLoad:
        waited_s = runtime.presence.request(model)
        if waited_s < runtime.settings.model_wait_s or not runtime.others_unable(model):
            raise
    detail = f"no worker can load {model_name(model)}; the workers' logs say why"
    rejection = Rejection(RejectionCode.MODEL_ERROR, Stage.INFER, True, detail)
    return [ItemResult(rejection=rejection)] * len(claim.specs)


def _leave(runtime: Runtime, claim: Claim) -> None:
    """Give a chunk back for another worker: at once where one may take it."""
    if runtime.others_unable(claim.model):
        runtime.store.defer(claim, NOBODY_CAN_S)
        return
    time.sleep(HAND_ON_S)
    runtime.store.defer(claim, 0)
    runtime.bell.ring(claim.job_id, [claim.chunk_index], claim.lane)


def _score(runtime: Runtime, claim: Claim, predictor: Predictor) -> list[ItemResult]:
    """Score a chunk; from its second attempt on item by item and alone, to find a killer."""
    settings, model = runtime.settings, claim.model
    cache = partial(runtime.cache.get, model.key) if claim.use_cache else _nothing_known
    coming = arrivals(runtime, claim)
    count = len(claim.specs)
    if claim.first_try:
        limits = Limits(settings.batch_size, settings.max_pixels, runtime.memory)
        return classify(coming, count, predictor, limits, lambda _: runtime.company.shared(), cache)

    @contextmanager
    def noted(position: int) -> Iterator[None]:
        with runtime.company.alone():
            runtime.store.checkpoint(claim, position)
            yield
            runtime.store.checkpoint(claim, None)

    limits = Limits(1, settings.max_pixels, runtime.memory)
    return classify(coming, count, predictor, limits, noted)


def _nothing_known(_sha256: str) -> None:
    """Stand for the cache of a job that uses none."""


def _give_up(claim: Claim) -> list[ItemResult]:
    rejection = Rejection(
        RejectionCode.INTERNAL,
        Stage.INFER,
        True,
        f"{claim.attempt - 1} attempts at this part of the job failed; the worker's log says why",
    )
    return [ItemResult(rejection=rejection)] * len(claim.specs)
