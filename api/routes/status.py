"""Whether the service is up and what it offers: /healthz, /readyz, /models, /limits."""

from fastapi import APIRouter

from api.auth import OwnerDep
from api.errors import problems
from api.schemas import Health, LimitsOut, ModelCardOut
from api.services import ServicesDep
from worker.jobs.errors import NotReady
from worker.jobs.ledger.api_keys import ANYONE

router = APIRouter(tags=["service"])


@router.get("/healthz", response_model_exclude_none=True)
async def healthz() -> Health:
    """Say that this process runs."""
    return Health(status="ok")


@router.get("/readyz", response_model_exclude_none=True, responses=problems(503))
def readyz(services: ServicesDep) -> Health:
    """Say that Redis answers and a worker is alive that has, or can load, the default model."""
    workers = services.workers.live()
    if not workers:
        raise NotReady("no worker with a warm model is alive: start one, or look at its log")
    default = services.catalog.resolve(None)
    present = services.presence.of(workers)
    if all(default.ref.key in worker.unable for worker in present):
        raise NotReady(
            f"no worker can load {default.name}@{default.version}: look at a worker's log, or go "
            f"back with `piqueue models rollback {default.name}`"
        )
    warm = sum(default.ref.key in worker.warm for worker in present)
    return Health(status="ready", workers=len(workers), warm=warm)


@router.get("/models", responses=problems(503))
def models(services: ServicesDep) -> list[ModelCardOut]:
    """List the models that jobs may name, the newest version of each first."""
    cards = services.catalog.all()
    default = services.catalog.resolve(None)
    current = {services.catalog.resolve(name) for name in {card.name for card in cards}}
    present = services.presence.of(services.workers.live())
    return [
        ModelCardOut(
            name=card.name,
            version=card.version,
            sha256=card.sha256,
            labels=list(card.labels),
            thresholds=dict(zip(card.labels, card.thresholds, strict=True)),
            top_k=card.top_k,
            created=card.created,
            default=card == default,
            current=card in current,
            warm_workers=sum(card.ref.key in worker.warm for worker in present),
            unable_workers=sum(card.ref.key in worker.unable for worker in present),
        )
        for card in cards
    ]


@router.get("/limits", responses=problems(401, 503))
def limits(services: ServicesDep, owner: OwnerDep) -> LimitsOut:
    """Say how much one may send, and how much of one's quota is used."""
    settings, load = services.settings, services.load
    return LimitsOut(
        max_items=settings.max_items,
        max_files=settings.max_files,
        max_item_bytes=settings.max_item_bytes,
        max_request_bytes=settings.max_request_bytes,
        max_json_bytes=settings.max_json_bytes,
        max_pixels=settings.max_pixels,
        job_ttl_s=settings.job_ttl_s,
        s3_fetch_buckets=list(settings.s3_fetch_buckets),
        quota_items=None if owner == ANYONE else settings.quota_items,
        waiting_items=load.backlog(owner),
        rate_per_s=round(load.rate_per_s(), 1),
    )
