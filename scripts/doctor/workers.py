"""The workers: who is alive, and which versions of the models they have or cannot load."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from scripts.doctor.check_result import CheckResult, ok, problem, warning
from scripts.doctor.consistency import is_this_machine
from scripts.doctor.redis import open_redis
from worker.jobs.errors import LedgerUnavailable, PiqueueError
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.ledger.model_presence import ModelPresence, WorkerModels
from worker.jobs.ledger.workers import WORKER_SILENT_S, Workers
from worker.jobs.models.catalog import ModelCard
from worker.jobs.models.configured import open_catalog
from worker.jobs.settings import Settings


def check_workers(settings: Settings) -> Iterator[CheckResult]:
    """Ask Redis who was heard of lately, and what they said of their models."""
    try:
        with open_redis(settings) as client:
            slots = Workers(client).live()
            presence = ModelPresence(client)
            told = dict(zip(slots, presence.of(slots), strict=True))
            wanted = [f"{model.name}@{model.version}" for model in presence.wanted()]
    except (LedgerUnavailable, ValueError):
        yield problem("workers", "not known, for Redis does not answer", "first see to Redis")
        return
    if not slots:
        yield problem(
            "workers",
            f"none was heard of in the last {WORKER_SILENT_S} s: work waits",
            "start one, `python -m worker`, with the same PIQUEUE_REDIS_URL; or look at its log",
        )
        return
    yield ok("workers", f"{len(slots)} alive, {sum(slots.values())} chunks at a time")
    try:
        yield from _models(open_catalog(settings).resolve(None), told)
    except PiqueueError as error:
        yield problem("models", str(error), "correct PIQUEUE_DEFAULT_MODEL or the registry")
    if wanted:
        yield problem(
            "models wanted",
            f"jobs wait for {', '.join(sorted(wanted))}, which no worker has loaded yet",
            "look at a worker's log; give workers the registry that the API has",
        )


def _models(default: ModelCard, told: dict[str, WorkerModels]) -> Iterator[CheckResult]:
    name = f"{default.name}@{default.version}"
    warm = [worker for worker, models in told.items() if default.ref.key in models.warm]
    yield (ok if warm else _none_warm)(
        "models", f"{len(warm)} of {len(told)} workers have the default model, {name}, loaded"
    )
    for worker, models in sorted(told.items()):
        if models.unable:
            unable = ", ".join(sorted(key.partition(":")[0] for key in models.unable))
            found = problem if default.ref.key in models.unable else warning
            yield found(
                "models",
                f"{worker} cannot load {unable}",
                "look at that worker's log for model_unusable; it may lack the registry, memory or "
                f"an engine; `piqueue models rollback {default.name}` goes back a version",
            )


def _none_warm(check: str, text: str) -> CheckResult:
    return warning(
        check, text, "wait for a worker to load it; if this stays, give workers the same settings"
    )


def check_keys(settings: Settings, api_url: str) -> Iterator[CheckResult]:
    """Say whether callers need an API key, as far as the API at `api_url` calls for them."""
    try:
        with open_redis(settings) as client:
            count = len(KeyStore(client).all())
    except (LedgerUnavailable, ValueError):
        yield problem("keys", "not known, for Redis does not answer", "first see to Redis")
        return
    advice = "make a key, `piqueue keys add NAME`: from the first one on every request needs one"
    host = urlsplit(api_url).hostname or ""
    if count:
        yield ok("keys", f"{count} API keys: every request needs one")
    elif settings.allow_no_keys or not is_this_machine(host):
        # A plain name is one of a private network, such as that of a Compose stack.
        plain = not set(".:") & set(host)
        found = warning if settings.allow_no_keys or plain else problem
        yield found("keys", "there is no API key: whoever reaches the API may use it", advice)
    else:
        yield ok("keys", "no API key, so the API serves this machine alone")
