"""Runs one worker process until SIGTERM; it then finishes its chunks and exits."""

import gc
import sys

from celery.signals import setup_logging, worker_shutting_down

from worker.jobs.errors import PiqueueError
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.server import check_at_start
from worker.jobs.logs import configure_logs
from worker.jobs.settings import load_settings
from worker.jobs.traces import start_traces, stop_traces
from worker.scoring.metrics import serve_metrics
from worker.scoring.runtime import Runtime
from worker.tasks import Threads, make_worker_app
from worker.upkeep.comparison import ComparisonThread
from worker.upkeep.heartbeat import Heartbeat
from worker.upkeep.idle_drafts import IdleDrafts
from worker.upkeep.leases import LeaseRenewal
from worker.upkeep.model_refresh import ModelRefresher
from worker.upkeep.periodic import PeriodicThread
from worker.upkeep.recovery import Recovery
from worker.upkeep.storage_maintenance import StorageMaintenance
from worker.upkeep.webhook_delivery import WebhookSender

LOOP_TICK_S = 1.0


def main() -> int:
    """Build the runtime, run the worker until a signal stops it, and give the exit code."""
    try:
        settings = load_settings()
        configure_logs(as_json=settings.log_json)
        start_traces("piqueue-worker")
        check_at_start(settings.redis_url)
        # Modules live as long as the process, and each collection would scan them for 30 ms. Models
        # are loaded later, so that evicted ones are still collected.
        gc.collect()
        gc.freeze()
        runtime = Runtime(settings)
        heartbeat = Heartbeat(runtime)
        upkeep: list[PeriodicThread] = [
            ModelRefresher(runtime),
            heartbeat,
            LeaseRenewal(runtime),
            Recovery(runtime),
            WebhookSender(settings, runtime.metrics),
            IdleDrafts(runtime.store, runtime.load, runtime.blobs, settings.draft_idle_s),
        ]
        if settings.stores_on_s3 or settings.storage_folder:
            redis = connect(settings.redis_url, retry_silence=True)
            upkeep.append(StorageMaintenance(settings, redis))
            upkeep.append(ComparisonThread(settings, redis))
        metrics_server = serve_metrics(runtime.metrics, settings)
    except PiqueueError as error:
        print(f"piqueue worker: {error}", file=sys.stderr)  # noqa: T201
        return 1
    setup_logging.connect(_keep_our_logs)

    def claim_no_more(**_: object) -> None:
        runtime.stopping.set()

    worker_shutting_down.connect(claim_no_more, weak=False)
    worker = make_worker_app(runtime).Worker(
        pool=Threads,
        concurrency=runtime.max_chunks,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        hostname=runtime.worker_id,
        quiet=True,
    )

    def tick() -> None:
        heartbeat.loop_tick()
        # Celery's consumer follows this limit, because of worker_disable_prefetch.
        worker.max_concurrency = runtime.allowed_chunks

    worker.max_concurrency = runtime.slots
    worker.hub.call_repeatedly(LOOP_TICK_S, tick)
    for thread in upkeep:
        thread.start()
    worker.start()
    for thread in reversed(upkeep):
        thread.stop()
    runtime.close()
    if metrics_server:
        metrics_server.shutdown()
        metrics_server.server_close()
    stop_traces()
    return int(worker.exitcode or 0)


def _keep_our_logs(**_: object) -> None:
    """Replace the logging configuration of Celery."""


if __name__ == "__main__":
    sys.exit(main())
