"""The models, stores and fetchers of one worker process, built once at its start."""

import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model.artifact.card import ArtifactInvalid
from model.engines.joint import JointPredictor
from model.engines.network import NetworkPredictor, SharedNetworks
from model.images.memory_budget import MemoryBudget
from model.predictor import Predictor, VariantChoice, load_predictor
from worker.fetching.fetcher import Fetcher
from worker.fetching.session import FetchLimits
from worker.jobs.errors import ModelNotFound, ModelUnavailable
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.score_cache import ScoreCache
from worker.jobs.ledger.score_days import ScoreDays
from worker.jobs.ledger.store import JobStore
from worker.jobs.ledger.workers import ModelPresence, Workers
from worker.jobs.models.configured import open_catalog
from worker.jobs.record import ModelRef
from worker.jobs.settings import Settings, require_boto3
from worker.jobs.storage.blobs import open_storage
from worker.scoring.batching import BatchingPredictor
from worker.scoring.metrics import TimedPredictor, WorkerMetrics
from worker.scoring.model_pool import CannotLoad, ModelPool
from worker.scoring.score_tally import ScoreTally

if TYPE_CHECKING:  # it loads boto3
    from worker.fetching.s3 import S3Fetcher

# Chunks that a process claims beyond those it scores, so that fetching and scoring overlap.
FETCH_AHEAD = 2
# A chunk that has waited for its hosts this long allows another chunk to be claimed, up to so many
# times the slots of the process.
STALLED_S = 2
STALLED_SHARE = 7
# A chunk that may contain a poison item has a shorter lease, so that it is retried sooner.
QUARANTINE_LEASE_S = 10
# The measured speeds of model variants, in PIQUEUE_MODELS_CACHE_PATH.
SPEEDS_NAME = "speeds.json"
# A worker keeps its scores and tries to write them while Redis is unavailable.
REDIS_RETRIES = 60


@dataclass
class ClaimedChunk:
    """A claim, the time of the claim, and since when it waits for the network, if it does.

    Both times are of the monotonic clock.
    """

    claim: Claim
    since: float
    waiting_since: float = math.inf


class ScoringGate:
    """A lock that `size` threads share, or one holds exclusively.

    If the process dies while a thread scores exclusively, the item of that thread is the reason.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._slots = threading.BoundedSemaphore(size)
        self._exclusive = threading.Lock()

    def shared(self) -> AbstractContextManager[bool]:
        """Hold the lock beside other threads."""
        return self._slots

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._exclusive, ExitStack() as slots:
            for _ in range(self.size):
                slots.enter_context(self._slots)
            yield


class Runtime:
    """What the threads of one worker process share."""

    def __init__(self, settings: Settings) -> None:
        """Connect and warm the default model, and leave its jobs to others if it does not load."""
        redis = connect(settings.redis_url, retries=REDIS_RETRIES, retry_silence=True)
        self.settings = settings
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.metrics = WorkerMetrics()
        self.store = JobStore(redis)
        self.load = Load(redis)
        self.workers = Workers(redis)
        self.cache = ScoreCache(redis, settings.cache_ttl_s, shared=settings.cache_shared)
        self.presence = ModelPresence(redis)
        self.score_days = ScoreDays(redis)
        self.score_tally = ScoreTally()
        # The result files and the fetcher are None if the settings name no bucket for them.
        self.blobs, self.parts = open_storage(settings, redis)
        self.s3_fetcher = _open_s3_fetcher(settings)
        self.fetcher = Fetcher(
            replace(
                FetchLimits.of(settings),
                per_host=min(settings.fetch_per_host, max(1, settings.fetch_concurrency // 2)),
                # Even if all its hosts are slow, a chunk must end before its deadline.
                patience_s=settings.chunk_deadline_s / 2,
            )
        )
        self.memory = MemoryBudget(settings.decode_memory_bytes)
        self.gate = ScoringGate(settings.threads + FETCH_AHEAD)
        # By `Claim.key`.
        self.claimed: dict[tuple[str, int, int], ClaimedChunk] = {}
        self.catalog = open_catalog(settings)
        # Set when the process is told to stop: it claims no more chunks.
        self.stopping = threading.Event()
        self._lock, self._occupied = threading.Lock(), 0
        self._networks = SharedNetworks()
        self.models = ModelPool(self._load, self._memory_bytes, settings.models_bytes)
        # The model pool logs the reason, and the API reports the model as not loaded.
        with suppress(CannotLoad), self.models.using(self.catalog.resolve(None).ref):
            pass

    @property
    def slots(self) -> int:
        """How many chunks this process runs at a time."""
        return self.gate.size

    @property
    def max_chunks(self) -> int:
        """How many chunks this process may ever claim, with those that stall."""
        return self.slots * (1 + STALLED_SHARE)

    @property
    def allowed_chunks(self) -> int:
        """How many chunks this process may claim now: its slots and those that stall."""
        stalled_from = time.monotonic() - STALLED_S
        stalled = sum(chunk.waiting_since < stalled_from for chunk in list(self.claimed.values()))
        return min(self.slots + stalled, self.max_chunks)

    @contextmanager
    def slot(self) -> Iterator[Callable[[], bool]]:
        """Occupy a slot; gives a function that says whether to claim another chunk in it."""
        with self._lock:
            self._occupied += 1
        try:
            yield lambda: not self.stopping.is_set() and self._occupied <= self.allowed_chunks
        finally:
            with self._lock:
                self._occupied -= 1

    def others_unable(self, model_key: str) -> bool:
        """Whether every other live worker reports that it cannot load a model."""
        others = self.workers.live().keys() - {self.worker_id}
        return all(model_key in one.unable for one in self.presence.of(others))

    def lease_s(self, claim: Claim) -> float:
        """The lease of a chunk: a shorter one if it may contain a poison item."""
        lease_s = self.settings.lease_s
        return lease_s if claim.first_try else min(lease_s, QUARANTINE_LEASE_S)

    @contextmanager
    def keep_lease(self, claim: Claim) -> Iterator[None]:
        """Have the heartbeat renew the lease of a claim while the block runs."""
        self.claimed[claim.key] = ClaimedChunk(claim, time.monotonic())
        try:
            yield
        finally:
            del self.claimed[claim.key]

    def close(self) -> None:
        """Stop the fetchers."""
        self.fetcher.close()
        if self.s3_fetcher is not None:
            self.s3_fetcher.close()

    def _load(self, model: ModelRef) -> Predictor:
        settings = self.settings
        try:
            parts = self._load_parts(model)
            predictor: Predictor = parts[0] if len(parts) == 1 else JointPredictor(parts)
            predictor.warm_up()
            labels = [part.card.labels for part in parts]
            keys = [part.key for part in model.parts]
            self.score_tally.know(model.key, dict(zip(keys, labels, strict=True)))
        # The engines raise the last three for a file that they cannot run.
        except (
            *(ArtifactInvalid, ModelNotFound, ModelUnavailable, OSError),
            *(ImportError, ValueError, RuntimeError),
        ) as error:
            raise CannotLoad(str(error)) from error
        if predictor.batched:
            limits = (settings.batch_size, settings.batch_wait_s)
            return BatchingPredictor(predictor, model, self.metrics, *limits)
        return TimedPredictor(predictor, model, self.metrics)

    def _load_parts(self, model: ModelRef) -> list[NetworkPredictor]:
        """Load the models of a job; those with the same backbone run the same variant of it."""
        settings = self.settings

        def load(part: ModelRef, variant: VariantChoice) -> NetworkPredictor:
            return load_predictor(
                self.catalog.fetch(part),
                settings.engine.value,
                threads=settings.threads,
                batch_size=settings.batch_size,
                variant=variant,
                speeds_path=settings.models_cache_path.expanduser() / SPEEDS_NAME,
                networks=self._networks,
            )

        parts = [load(part, settings.model_variant.value) for part in model.parts]
        # One of the models does not have the variant: two networks would cost more than float.
        in_float = {part.backbone for part in parts if part.variant == "float"} - {None}
        return [
            load(ref, "float") if part.backbone in in_float and part.variant != "float" else part
            for ref, part in zip(model.parts, parts, strict=True)
        ]

    def _memory_bytes(self, model: ModelRef) -> int:
        try:
            cards = [self.catalog.card(part) for part in model.parts]
            # Models with the same backbone share it, whatever they are a part of.
            memory = {card.backbone or card.sha256: card.memory_bytes for card in cards}
            return sum(memory.values()) * self.settings.threads
        except ModelNotFound as error:
            raise CannotLoad(str(error)) from error


def _open_s3_fetcher(settings: Settings) -> "S3Fetcher | None":
    if not settings.s3_fetch_buckets:
        return None
    require_boto3()
    from worker.fetching.s3 import S3Fetcher

    return S3Fetcher(settings)
