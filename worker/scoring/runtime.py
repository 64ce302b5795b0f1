"""What one worker process holds, built once and warmed up."""

import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from model.artifact.card import ArtifactInvalid
from model.images.memory_budget import MemoryBudget
from model.predictor import Predictor, load_predictor
from worker.fetching.fetcher import Fetcher, FetchLimits
from worker.jobs.errors import ModelNotFound, ModelUnavailable
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.model_presence import ModelPresence
from worker.jobs.ledger.score_cache import ScoreCache
from worker.jobs.ledger.store import JobStore
from worker.jobs.ledger.workers import Workers
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.configured import open_catalog
from worker.jobs.queue import Notifier, make_celery
from worker.jobs.record import ModelRef
from worker.jobs.settings import Settings, require_boto3
from worker.jobs.storage.blobs import BlobStore
from worker.jobs.storage.configured import open_blobs, open_parts
from worker.scoring.metrics import TimedPredictor, WorkerMetrics
from worker.scoring.model_pool import CannotLoad, ModelPool

if TYPE_CHECKING:  # they load boto3
    from worker.fetching.s3 import S3Fetcher
    from worker.jobs.storage.parts import ResultParts

# Chunks a process holds beyond those it scores, so that fetching and scoring overlap.
FETCH_AHEAD = 2
# A chunk that has waited for its hosts for this long makes room for another, up to so many times
# the chunks a process runs.
STALLED_S = 2
STALLED_SHARE = 7
# A chunk that may hold a killer is tried again sooner after its worker fell silent.
CAREFUL_LEASE_S = 10
# A worker goes on trying to write down what it scored while Redis is away.
REDIS_RETRIES = 60


@dataclass
class Held:
    """A chunk in work: its claim and when it was taken, by the monotonic clock."""

    claim: Claim
    since: float
    # Since when it waits for the network, by the same clock.
    waiting_since: float = math.inf


class ScoringGate:
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
    workers: Workers
    blobs: BlobStore
    cache: ScoreCache
    bell: Notifier
    catalog: ModelCatalog
    models: ModelPool
    presence: ModelPresence
    fetcher: Fetcher
    # None where the settings name no bucket to fetch from, and none to write results to.
    s3_fetcher: "S3Fetcher | None"
    parts: "ResultParts | None"
    worker_id: str
    company: ScoringGate
    memory: MemoryBudget
    metrics: WorkerMetrics
    held: dict[tuple[str, int], Held] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        """Chunks this process runs at a time."""
        return self.company.size

    @property
    def most_chunks(self) -> int:
        """Chunks this process takes at most, while others of them stall."""
        return self.slots * (1 + STALLED_SHARE)

    @property
    def room(self) -> int:
        """Chunks this process may hold now: those that stall make room for others."""
        stalled_from = time.monotonic() - STALLED_S
        stalled = sum(held.waiting_since < stalled_from for held in list(self.held.values()))
        return min(self.slots + stalled, self.most_chunks)

    def others_unable(self, model: ModelRef) -> bool:
        """Whether every other live worker says that it cannot load a model."""
        others = self.workers.live().keys() - {self.worker_id}
        return all(model.key in one.unable for one in self.presence.of(others))

    def lease_s(self, claim: Claim) -> float:
        """How long a chunk is held without a sign of life: shorter where it may be a killer's."""
        lease_s = self.settings.lease_s
        return lease_s if claim.first_try else min(lease_s, CAREFUL_LEASE_S)

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
    """Connect, and load and warm the default model; who cannot leaves its jobs to others."""
    redis = connect(settings.redis_url, retries=REDIS_RETRIES, retry_silence=True)
    catalog, metrics = open_catalog(settings), WorkerMetrics()
    runtime = Runtime(
        settings=settings,
        store=JobStore(redis),
        workers=Workers(redis),
        blobs=open_blobs(settings, redis),
        parts=open_parts(settings, redis),
        s3_fetcher=_open_s3_fetcher(settings),
        cache=ScoreCache(redis, settings.cache_ttl_s),
        bell=Notifier(make_celery(settings)),
        catalog=catalog,
        models=ModelPool(
            partial(_load_warm, settings, catalog, metrics),
            partial(_memory_of, settings, catalog),
            settings.models_bytes,
        ),
        presence=ModelPresence(redis),
        metrics=metrics,
        fetcher=Fetcher(
            FetchLimits(
                timeout_s=settings.fetch_timeout_s,
                max_bytes=settings.max_item_bytes,
                concurrency=settings.fetch_concurrency,
                per_host=min(settings.fetch_per_host, max(1, settings.fetch_concurrency // 2)),
                budget_bytes=settings.fetch_budget_bytes,
                # A chunk whose hosts are all slow still ends before its worker would.
                patience_s=settings.chunk_deadline_s / 2,
                allow_networks=settings.fetch_allow_networks,
            )
        ),
        company=ScoringGate(settings.threads + FETCH_AHEAD),
        memory=MemoryBudget(settings.decode_memory_bytes),
        worker_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
    )
    # Said where it was tried; the API says what comes of it.
    with suppress(CannotLoad), runtime.models.using(catalog.resolve(None).ref):
        pass
    return runtime


def _load_warm(
    settings: Settings, catalog: ModelCatalog, metrics: WorkerMetrics, model: ModelRef
) -> Predictor:
    try:
        predictor = load_predictor(
            catalog.fetch(model),
            settings.engine.value,
            threads=settings.threads,
            batch_size=settings.batch_size,
        )
        predictor.warm_up()
    # The last three are what the engines raise for a file that they cannot run.
    except (
        *(ArtifactInvalid, ModelNotFound, ModelUnavailable, OSError),
        *(ImportError, ValueError, RuntimeError),
    ) as error:
        raise CannotLoad(str(error)) from error
    return TimedPredictor(predictor, model, metrics)


def _memory_of(settings: Settings, catalog: ModelCatalog, model: ModelRef) -> int:
    try:
        return catalog.card(model).memory_bytes * settings.threads
    except ModelNotFound as error:
        raise CannotLoad(str(error)) from error


def _open_s3_fetcher(settings: Settings) -> "S3Fetcher | None":
    if not settings.s3_fetch_buckets:
        return None
    require_boto3()
    from worker.fetching.s3 import S3Fetcher

    return S3Fetcher.open(settings)
