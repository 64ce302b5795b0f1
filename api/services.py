"""What the routes of one API process share, built once at its start."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

from fastapi import Depends, Request

from api.job_events import Waiters
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.idempotency import IdempotencyKeys
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.model_presence import ModelPresence
from worker.jobs.ledger.store import JobStore
from worker.jobs.ledger.workers import Workers
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.configured import open_catalog
from worker.jobs.queue import Notifier, make_celery
from worker.jobs.settings import Settings
from worker.jobs.storage.blobs import BlobStore, open_storage
from worker.jobs.webhooks.outbox import Outbox
from worker.jobs.webhooks.secrets import WebhookSecrets

if TYPE_CHECKING:  # it loads boto3
    from worker.jobs.storage.parts import ResultParts


@dataclass(frozen=True)
class Services:
    """Stores, doorbell, catalog and waiters; all safe to use from many threads."""

    settings: Settings
    store: JobStore
    load: Load
    workers: Workers
    blobs: BlobStore
    # None unless results are written to S3.
    parts: "ResultParts | None"
    bell: Notifier
    catalog: ModelCatalog
    presence: ModelPresence
    waiters: Waiters
    keys: KeyStore
    idempotency: IdempotencyKeys
    outbox: Outbox
    webhook_secrets: WebhookSecrets

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Build them; no connection is made before the first use."""
        redis = connect(settings.redis_url)
        blobs, parts = open_storage(settings, redis)
        return cls(
            settings=settings,
            store=JobStore(redis),
            load=Load(redis),
            workers=Workers(redis),
            blobs=blobs,
            parts=parts,
            bell=Notifier(make_celery(settings)),
            catalog=open_catalog(settings),
            presence=ModelPresence(redis),
            waiters=Waiters(settings.redis_url),
            keys=KeyStore(redis),
            idempotency=IdempotencyKeys(redis, settings.idempotency_ttl_s),
            outbox=Outbox(redis),
            webhook_secrets=WebhookSecrets(redis),
        )


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
