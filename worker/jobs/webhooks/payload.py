"""What a webhook says of a finished job: the event `job.finished`, as JSON."""

from dataclasses import asdict
from typing import Any

from pydantic_core import to_json

from worker.jobs.record import JOB_ERRORS, Job, utc

JOB_FINISHED = "job.finished"


def webhook_id(job_id: str) -> str:
    """Name the event of a job, the same for each attempt at its delivery."""
    return job_id.replace("job_", "msg_", 1)


def job_finished(job: Job) -> bytes:
    """Write the event of a job that is done, the same bytes each time."""
    assert job.finished_ms is not None
    body = {"type": JOB_FINISHED, "timestamp": utc(job.finished_ms), "data": job_fields(job)}
    return to_json(body)


def job_fields(job: Job) -> dict[str, Any]:
    """Give the fields of a job that is done, as the API shows them."""
    return {
        "id": job.id,
        "status": job.status,
        "done": job.status.done,
        "name": job.name,
        "model": asdict(job.model),
        "priority": job.lane,
        "counts": {**asdict(job.counts), "waiting": job.counts.waiting},
        "failures": job.failures,
        "created_at": utc(job.created_ms),
        "started_at": job.started_ms and utc(job.started_ms),
        "finished_at": job.finished_ms and utc(job.finished_ms),
        "expires_at": utc(job.expires_ms),
        "metadata": job.metadata,
        "parent_job": job.parent_job,
        "error": job.error and JOB_ERRORS[job.error],
    }
