"""What one worker process holds, built once and warmed up, and the run of one chunk through it."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from model.predictor import Predictor, load_predictor
from worker.classify import Arrival, Limits, classify
from worker.fetch import FetchCode, Fetcher, FetchFailed, FetchLimits, Outcome
from worker.jobs.blobs import BlobStore
from worker.jobs.errors import JobNotFound, StorageUnavailable
from worker.jobs.models import ModelCatalog
from worker.jobs.objects import open_blobs, open_parts, require_boto3
from worker.jobs.queue import DoorBell, make_celery
from worker.jobs.record import ItemResult, ModelRef, Rejection, RejectionCode, Stage
from worker.jobs.scorecache import ScoreCache
from worker.jobs.settings import Settings
from worker.jobs.store import Claim, JobStore, connect
from worker.metrics import TimedPredictor, WorkerMetrics

if TYPE_CHECKING:  # they load boto3
    from worker.jobs.parts import ResultParts
    from worker.s3 import S3Fetcher

# Chunks a process holds beyond those it scores, so that fetching and scoring overlap.
FETCH_AHEAD = 2
# A worker goes on trying to write down what it scored while Redis is away.
REDIS_RETRIES = 60
# A chunk that needs S3 while that is away is tried again after this time, as often as it takes.
S3_AWAY_S = 10
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

log = structlog.get_logger()


@dataclass
class Held:
    """A chunk in work: its claim and when it was taken, by the monotonic clock."""

    claim: Claim
    since: float


class Company:
    """Lets up to `size` threads score side by side, or one alone: if it dies, it was that one."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._places = threading.BoundedSemaphore(size)
        self._taking_all = threading.Lock()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Score beside others."""
        with self._places:
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Score while no other thread does."""
        with self._taking_all, ExitStack() as places:
            for _ in range(self.size):
                places.enter_context(self._places)
            yield


@dataclass
class Runtime:
    """The predictors, stores and fetcher of one worker process."""

    settings: Settings
    store: JobStore
    blobs: BlobStore
    cache: ScoreCache
    bell: DoorBell
    catalog: ModelCatalog
    fetcher: Fetcher
    # None where the settings name no bucket to fetch from, and none to write results to.
    s3_fetcher: "S3Fetcher | None"
    parts: "ResultParts | None"
    worker_id: str
    company: Company
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    held: dict[tuple[str, int], Held] = field(default_factory=dict)
    _predictors: dict[str, Predictor] = field(default_factory=dict)
    _loading: threading.Lock = field(default_factory=threading.Lock)

    @property
    def slots(self) -> int:
        """Chunks this process runs at a time."""
        return self.company.size

    def predictor(self, model: ModelRef) -> Predictor:
        """Give the warm predictor of a model, loading it at its first use."""
        with self._loading:
            predictor = self._predictors.get(model.sha256)
            if predictor is None:
                settings = self.settings
                predictor = load_predictor(
                    settings.artifacts_path / model.name / model.version,
                    settings.engine.value,
                    threads=settings.threads,
                    batch_size=settings.batch_size,
                )
                predictor.warm_up()
                predictor = TimedPredictor(predictor, model, self.metrics)
                self._predictors[model.sha256] = predictor
                log.info("model_warm", model=model.name, version=model.version)
            return predictor

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[None]:
        """Keep the lease of a claim alive while the block runs."""
        key = (claim.job_id, claim.chunk_index)
        self.held[key] = Held(claim, time.monotonic())
        try:
            yield
        finally:
            del self.held[key]

    def close(self) -> None:
        """Stop the fetchers."""
        self.fetcher.close()
        if self.s3_fetcher is not None:
            self.s3_fetcher.close()


def build_runtime(settings: Settings) -> Runtime:
    """Connect, and load and warm the default model."""
    redis = connect(settings.redis_url, retries=REDIS_RETRIES)
    runtime = Runtime(
        settings=settings,
        store=JobStore(redis),
        blobs=open_blobs(settings, redis),
        parts=open_parts(settings, redis),
        s3_fetcher=_open_s3_fetcher(settings),
        cache=ScoreCache(redis, settings.cache_ttl_s),
        bell=DoorBell(make_celery(settings)),
        catalog=ModelCatalog(settings.artifacts_path, settings.default_model),
        fetcher=Fetcher(
            FetchLimits(
                timeout_s=settings.fetch_timeout_s,
                max_bytes=settings.max_item_bytes,
                concurrency=settings.fetch_concurrency,
                per_host=settings.fetch_per_host,
                allow_networks=settings.fetch_allow_networks,
            )
        ),
        company=Company(settings.threads + FETCH_AHEAD),
        worker_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
    )
    runtime.predictor(runtime.catalog.resolve(None).ref)
    return runtime


def _open_s3_fetcher(settings: Settings) -> "S3Fetcher | None":
    if not settings.s3_fetch_buckets:
        return None
    require_boto3()
    from worker.s3 import S3Fetcher

    return S3Fetcher.open(settings)


def run_chunk(runtime: Runtime, job_id: str, chunk_index: int) -> None:
    """Claim a chunk, score it, commit it, ring for the next; a doubled message does nothing."""
    context = log.bind(job_id=job_id, chunk_index=chunk_index)
    claim = runtime.store.claim(job_id, chunk_index, runtime.settings.lease_s)
    if claim is None:
        context.debug("chunk_not_ours")
        return
    runtime.metrics.claimed(claim)
    started = time.monotonic()
    try:
        with runtime.holding(claim):
            results = _give_up(claim) if claim.hopeless else _score(runtime, claim)
            if claim.parts and not _write_part(runtime, claim, results):
                context.info("lease_lost")
                return
            ring = runtime.store.commit(claim, results)
    except JobNotFound:
        context.info("job_gone")
        return
    except StorageUnavailable as error:
        runtime.store.put_off(claim, S3_AWAY_S)
        context.warning("chunk_put_off", attempt=claim.attempt, reason=str(error))
        return
    runtime.bell.ring(job_id, ring, claim.lane)
    runtime.metrics.committed(claim, claim.model, results, time.monotonic() - started)
    try:
        _discard_scored(runtime, claim, results)
    except StorageUnavailable as error:
        context.warning("uploads_not_discarded", reason=str(error))
    context.info(
        "chunk_committed",
        attempt=claim.attempt,
        items=len(results),
        failed=sum(result.rejection is not None for result in results),
    )


def _write_part(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> bool:
    """Write the results of a chunk to S3; False when the chunk is another worker's by now.

    Where this process cannot, the part is written with the manifest.
    """
    if runtime.parts is None:
        return True
    if not runtime.store.renew(claim, runtime.settings.lease_s):
        return False
    runtime.parts.write(claim, results, runtime.store.model(claim.job_id))
    return True


def _discard_scored(runtime: Runtime, claim: Claim, results: Sequence[ItemResult]) -> None:
    """Forget the uploads that have scores; the others may be tried again."""
    pairs = zip(claim.specs, results, strict=True)
    scored = [spec.id for spec, result in pairs if result.scores and spec.url is None]
    runtime.blobs.discard(claim.job_id, scored)


def _score(runtime: Runtime, claim: Claim) -> list[ItemResult]:
    """Score a chunk; from its second attempt on item by item and alone, to find a killer."""
    settings = runtime.settings
    model = claim.model
    predictor = runtime.predictor(model)
    cache = partial(runtime.cache.get, model.sha256) if claim.use_cache else _nothing_known
    arrivals = _arrivals(runtime, claim)
    count = len(claim.specs)
    if claim.first_try:
        limits = Limits(settings.batch_size, settings.max_pixels)
        results = classify(
            arrivals, count, predictor, limits, lambda _: runtime.company.shared(), cache
        )
        for result in results if claim.use_cache else ():
            if result.scores and not result.cached:
                runtime.cache.put(model.sha256, result)
        return results

    @contextmanager
    def noted(position: int) -> Iterator[None]:
        with runtime.company.alone():
            runtime.store.note(claim, position)
            yield
            runtime.store.note(claim, None)

    return classify(arrivals, count, predictor, Limits(1, settings.max_pixels), noted)


def _nothing_known(_sha256: str) -> None:
    """Stand for the cache of a job that uses none."""


def _arrivals(runtime: Runtime, claim: Claim) -> Iterator[Arrival]:
    """Give each item of a chunk as its bytes come: lost ones first, then uploads, then URLs."""
    urls: dict[int, str] = {}
    for position, spec in enumerate(claim.specs):
        if position in claim.lost:
            yield Arrival(position, WORKER_LOST)
        elif spec.url is not None:
            urls[position] = spec.url
        else:
            payload = runtime.blobs.get(claim.job_id, spec.id)
            yield Arrival(position, UPLOAD_GONE if payload is None else payload)
    for position, outcome in _fetched(runtime, urls):
        if isinstance(outcome, FetchFailed):
            payload_or_not: bytes | Rejection = Rejection(
                RejectionCode(outcome.code), Stage.FETCH, outcome.retryable, outcome.detail
            )
        else:
            payload_or_not = outcome.payload
        yield Arrival(position, payload_or_not, outcome.elapsed_ms)


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


def _give_up(claim: Claim) -> list[ItemResult]:
    rejection = Rejection(
        RejectionCode.INTERNAL,
        Stage.INFER,
        True,
        f"{claim.attempt - 1} attempts at this part of the job failed; the worker's log says why",
    )
    return [ItemResult(rejection=rejection)] * len(claim.specs)
