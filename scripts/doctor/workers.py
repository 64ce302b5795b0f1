"""Checks the workers, the models that they have loaded or cannot load, and the API keys."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from scripts.doctor.redis import open_redis
from worker.jobs.errors import LedgerUnavailable, PiqueueError
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.ledger.workers import WORKER_SILENT_S, ModelPresence, WorkerModels, Workers
from worker.jobs.models.artifact import ModelCard
from worker.jobs.models.configured import open_catalog
from worker.jobs.settings import Settings, is_loopback

_NOT_KNOWN = ("not known: Redis does not answer", "solve the problem of Redis first")
_NONE_WARM_ADVICE = (
    "wait for a worker to load it; if that does not happen, give the workers the same settings"
)


def check_workers(settings: Settings) -> Iterator[CheckResult]:
    """Read from Redis which workers are alive and which models they have loaded."""
    try:
        with open_redis(settings) as client:
            slots = Workers(client).live()
            presence = ModelPresence(client)
            models = dict(zip(slots, presence.of(slots), strict=True))
            wanted = [f"{model.name}@{model.version}" for model in presence.wanted()]
    except LedgerUnavailable:
        yield problem("workers", *_NOT_KNOWN)
        return
    if not slots:
        yield problem(
            "workers",
            f"none sent a heartbeat in the last {WORKER_SILENT_S} s: jobs wait",
            "start one with the same PIQUEUE_REDIS_URL (`python -m worker`), or read its log",
        )
        return
    yield ok("workers", f"{len(slots)} alive, {sum(slots.values())} chunks at a time")
    try:
        yield from _models(open_catalog(settings).resolve(None), models)
    except PiqueueError as error:
        yield problem("models", str(error), "correct PIQUEUE_DEFAULT_MODEL or the registry")
    if wanted:
        yield problem(
            "models wanted",
            f"jobs wait for {', '.join(sorted(wanted))}, which no worker has loaded yet",
            "read a worker's log; give the workers the same PIQUEUE_REGISTRY_URL as the API",
        )


def _models(default: ModelCard, models: dict[str, WorkerModels]) -> Iterator[CheckResult]:
    name = f"{default.name}@{default.version}"
    warm = [
        known.warm[default.ref.key] for known in models.values() if default.ref.key in known.warm
    ]
    text = f"{len(warm)} of {len(models)} workers have the default model, {name}, loaded"
    if warm:
        text += f" ({', '.join(sorted({one.variant for one in warm}))})"
    yield ok("models", text) if warm else warning("models", text, _NONE_WARM_ADVICE)
    for worker, known in sorted(models.items()):
        if known.unable:
            unable = ", ".join(sorted(key.partition(":")[0] for key in known.unable))
            result = problem if default.ref.key in known.unable else warning
            yield result(
                "models",
                f"{worker} cannot load {unable}",
                "look for model_unusable in that worker's log; it may lack the registry, memory or "
                f"an engine; `piqueue models rollback {default.name}` returns to the last version",
            )


def check_keys(settings: Settings, api_url: str) -> Iterator[CheckResult]:
    """Check that the API at `api_url` requires API keys if other machines can reach it."""
    try:
        with open_redis(settings) as client:
            count = len(KeyStore(client).all())
    except LedgerUnavailable:
        yield problem("keys", *_NOT_KNOWN)
        return
    advice = (
        "create a key (`piqueue keys add NAME`): from the first one on every request needs a key"
    )
    host = urlsplit(api_url).hostname or ""
    if count:
        yield ok("keys", f"{count} API keys: every request needs one")
    elif settings.allow_no_keys or not is_loopback(host):
        # A name without dots belongs to a private network, such as that of Compose.
        plain = not set(".:") & set(host)
        result = warning if settings.allow_no_keys or plain else problem
        yield result("keys", "there is no API key: anyone who reaches the API may use it", advice)
    else:
        yield ok("keys", "no API key, so the API serves this machine only")
