"""The Celery app of a worker process: each task is a doorway into its runtime."""

from celery import Celery

from worker.jobs.queue import CLASSIFY_CHUNK, make_celery
from worker.runtime import Runtime, run_chunk


def make_worker_app(runtime: Runtime) -> Celery:
    """Give the Celery app whose tasks run in `runtime`."""
    celery = make_celery(runtime.settings)

    # What a task raises, Celery logs; the chunk's lease runs out and the sweep rings again.
    @celery.task(name=CLASSIFY_CHUNK)  # type: ignore[untyped-decorator]
    def classify_chunk(job_id: str, chunk_index: int) -> None:
        run_chunk(runtime, job_id, chunk_index)

    return celery
