"""Runs one worker process until SIGTERM, which lets it finish what it holds."""

import sys

from celery.signals import setup_logging

from worker.jobs.errors import PiqueueError
from worker.jobs.logs import configure_logs
from worker.jobs.settings import load_settings
from worker.jobs.traces import start_traces, stop_traces
from worker.scoring.metrics import serve_metrics
from worker.scoring.runtime import build_runtime
from worker.tasks import make_worker_app
from worker.upkeep.expiry import open_archivist
from worker.upkeep.heartbeat import Heartbeat
from worker.upkeep.model_refresh import ModelRefresher
from worker.upkeep.webhook_delivery import WebhookSender

LOOP_TICK_S = 1.0


def main() -> int:
    """Build the runtime, take chunks until told to stop, and give the exit code."""
    try:
        settings = load_settings()
        configure_logs(as_json=settings.log_json)
        start_traces("piqueue-worker")
        runtime = build_runtime(settings)
        archivist = open_archivist(settings)
        scrapes = serve_metrics(runtime.metrics, settings)
    except PiqueueError as error:
        print(f"piqueue worker: {error}", file=sys.stderr)  # noqa: T201
        return 1
    setup_logging.connect(_keep_our_logs)
    celery = make_worker_app(runtime)
    worker = celery.Worker(
        pool="threads",
        concurrency=runtime.most_chunks,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        hostname=runtime.worker_id,
        quiet=True,
    )
    pulse = Heartbeat(runtime)

    def tick() -> None:
        pulse.loop_tick()
        # What Celery's consumer goes by, with worker_disable_prefetch.
        worker.max_concurrency = runtime.room

    worker.max_concurrency = runtime.slots
    worker.hub.call_repeatedly(LOOP_TICK_S, tick)
    webhooks = WebhookSender(settings, runtime.metrics)
    keeper = ModelRefresher(runtime)
    keeper.start()
    pulse.start()
    webhooks.start()
    if archivist:
        archivist.start()
    worker.start()
    webhooks.stop()
    if archivist:
        archivist.stop()
    keeper.stop()
    pulse.stop()
    runtime.close()
    if scrapes:
        scrapes.shutdown()
        scrapes.server_close()
    stop_traces()
    return int(worker.exitcode or 0)


def _keep_our_logs(**_: object) -> None:
    """Stand where Celery would set up logs of its own."""


if __name__ == "__main__":
    sys.exit(main())
