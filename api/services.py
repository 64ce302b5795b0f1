"""What the routes of one API process share, built once at its start."""

from typing import Annotated

from fastapi import Depends, Request

from api.job_events import JobEvents
from api.shares import OpenRequests, OwnerThreads
from api.wrong_keys import WrongKeys
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.idempotency import IdempotencyKeys
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.score_days import ScoreDays
from worker.jobs.ledger.server import RedisServer
from worker.jobs.ledger.store import JobStore
from worker.jobs.ledger.workers import ModelPresence, Workers
from worker.jobs.models.configured import open_catalog
from worker.jobs.settings import Settings
from worker.jobs.storage.blobs import open_storage
from worker.jobs.storage.comparisons import Comparisons
from worker.jobs.webhooks.outbox import Outbox
from worker.jobs.webhooks.secrets import WebhookSecrets


class Services:
    """Stores, catalog and job events; all safe to use from many threads."""

    def __init__(self, settings: Settings) -> None:
        """Build them; the first use opens the connections."""
        redis = connect(settings.redis_url)
        self.settings = settings
        # For submissions, for those that take long to read, for downloads, and for lists of jobs,
        # pages of results and metrics, which do not wait for the downloads of their owner. Few
        # threads may compute at a time, because each of them delays the event loop.
        self.intake_threads = OwnerThreads(32, share=16)
        self.long_threads = OwnerThreads(4, share=2)
        # JSON bodies that are in memory, of some 50 MB each, from their reading to their last item.
        self.large_json = OwnerThreads(4, share=2)
        self.download_threads = OwnerThreads(2, share=1)
        self.read_threads = OwnerThreads(4, share=2)
        self.open_requests = OpenRequests(settings.max_connections // 2)
        # The names in `Host` that requests without a key may have; None for any.
        self.allowed_hosts: tuple[str, ...] | None = settings.allowed_hosts
        self.redis_server = RedisServer(redis)
        self.store = JobStore(redis)
        self.load = Load(redis)
        self.workers = Workers(redis)
        # `parts` is None unless results are written to S3.
        self.blobs, self.parts = open_storage(settings, redis)
        self.catalog = open_catalog(settings)
        self.presence = ModelPresence(redis)
        self.score_days = ScoreDays(redis)
        self.comparisons = Comparisons(redis)
        self.job_events = JobEvents(settings.redis_url)
        self.keys = KeyStore(redis)
        self.wrong_keys = WrongKeys()
        self.idempotency = IdempotencyKeys(redis, settings.idempotency_ttl_s)
        self.outbox = Outbox(redis)
        self.webhook_secrets = WebhookSecrets(redis)


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
