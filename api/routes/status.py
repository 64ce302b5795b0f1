"""GET /healthz, /readyz, /models, /limits: the state of the service and what it offers."""

from collections.abc import Sequence
from statistics import median

from fastapi import APIRouter

from api.auth import READ_SLOT, OwnerDep
from api.errors import problems
from api.formats import AVAILABLE
from api.schemas import Health, LimitsOut, ModelCardOut, ModelDetailsOut, VariantOut
from api.services import Services, ServicesDep
from worker.jobs.errors import ModelNotFound, NotReady
from worker.jobs.ledger.api_keys import ANYONE
from worker.jobs.ledger.workers import WorkerModels
from worker.jobs.models.artifact import ModelCard

_SHOWN = {"name", "version", "sha256", "labels", "top_k", "created", "backbone"}

router = APIRouter(tags=["service"])


@router.get("/healthz", response_model_exclude_none=True)
async def healthz() -> Health:
    """Check that this API process runs."""
    return Health(status="ok")


@router.get("/readyz", response_model_exclude_none=True, responses=problems(503))
def readyz(services: ServicesDep) -> Health:
    """Check that Redis responds, still has its API keys if there were any, and that a live worker
    has, or can load, the default model.
    """
    services.keys.exist()
    workers = services.workers.live()
    if not workers:
        raise NotReady("no worker is alive: start one, or read the log of a worker")
    default = services.catalog.resolve(None)
    present = services.presence.of(workers)
    if all(default.ref.key in worker.unable for worker in present):
        raise NotReady(
            f"no worker can load {default.name}@{default.version}: read the log of a worker, or "
            f"restore the previous version with `piqueue models rollback {default.name}`"
        )
    warm = sum(default.ref.key in worker.warm for worker in present)
    return Health(
        status="ready",
        workers=len(workers),
        warm=warm,
        variants=_variants(default.ref.key, present),
        warnings=services.redis_server.warnings() or None,
    )


@router.get("/models", responses=problems(503))
def models(services: ServicesDep) -> list[ModelCardOut]:
    """List the models that jobs can use, the newest version of each first."""
    return _cards(services, services.catalog.all())


@router.get("/models/{reference}", dependencies=[READ_SLOT], responses=problems(401, 422, 503))
def model(reference: str, services: ServicesDep) -> ModelDetailsOut:
    """Read the card of a model, `name` or `name@version`: also its figures and its sources."""
    card = services.catalog.resolve(reference)
    if card.parts:
        raise ModelNotFound(f"{reference!r} is several models: read one at a time")
    (shown,) = _cards(services, [card])
    details = services.catalog.details(card.ref)
    return ModelDetailsOut(
        **shown.model_dump(),
        **details.model_dump(exclude={"activation"}),
        input_size=card.input_size,
    )


def _cards(services: Services, cards: Sequence[ModelCard]) -> list[ModelCardOut]:
    default = services.catalog.resolve(None)
    current = {services.catalog.resolve(name) for name in {card.name for card in cards}}
    present = services.presence.of(services.workers.live())
    return [
        ModelCardOut(
            **card.model_dump(include=_SHOWN),
            thresholds=dict(zip(card.labels, card.thresholds, strict=True)),
            default=card == default,
            current=card in current,
            warm_workers=sum(card.ref.key in worker.warm for worker in present),
            unable_workers=sum(card.ref.key in worker.unable for worker in present),
            variants=_variants(card.ref.key, present),
            activation=services.catalog.details(card.ref).activation,
        )
        for card in cards
    ]


def _variants(model_key: str, workers: Sequence[WorkerModels]) -> list[VariantOut]:
    running = [worker.warm[model_key] for worker in workers if model_key in worker.warm]
    found = []
    for name in sorted({one.variant for one in running}):
        times = [one.picture_ms for one in running if one.variant == name]
        measured = [time for time in times if time is not None]
        speed = median(measured) if measured else None
        found.append(VariantOut(variant=name, workers=len(times), picture_ms=speed))
    return found


@router.get("/limits", responses=problems(401, 503))
def limits(services: ServicesDep, owner: OwnerDep) -> LimitsOut:
    """Read the limits of requests and jobs, and how much of your quota is used."""
    settings, load = services.settings, services.load
    stored_bytes, room_bytes = load.upload_bytes(owner), services.blobs.room_bytes()
    if room_bytes is not None and services.keys.count > 1:
        # Each picture that is stored also leaves less room.
        room_bytes = max(0, room_bytes - stored_bytes) // 2
    return LimitsOut(
        **settings.model_dump(include=set(LimitsOut.model_fields) - {"quota_items"}),
        results_formats=AVAILABLE,
        keeps_features=services.blobs.keeps_features,
        quota_items=None if owner == ANYONE else settings.quota_items,
        waiting_items=load.backlog(owner),
        upload_bytes=stored_bytes,
        upload_room_bytes=room_bytes,
        reads_heic=services.workers.reads_heic(),
        rate_per_s=round(load.rate().items, 1),
    )
