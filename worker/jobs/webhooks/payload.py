"""The webhook payload of a finished job: the event `job.finished` as JSON."""

from dataclasses import asdict
from typing import Any

from pydantic_core import to_json

from worker.jobs.record import JOB_ERRORS, Job, utc

JOB_FINISHED = "job.finished"


def webhook_id(job_id: str) -> str:
    """The id of a job's event, the same for every attempt."""
    return job_id.replace("job_", "msg_", 1)


def job_finished(job: Job) -> bytes:
    """The event of a done job, the same bytes each time."""
    assert job.finished_ms is not None
    body = {"type": JOB_FINISHED, "timestamp": utc(job.finished_ms), "data": job_fields(job)}
    return to_json(body)


def job_fields(job: Job) -> dict[str, Any]:
    """The fields of a done job, as in the API."""
    return {
        "id": job.id,
        "status": job.status,
        "done": job.status.done,
        "name": job.name,
        "model": asdict(job.model),
        "models": job.model.several and [asdict(model) for model in job.model.several],
        "priority": job.lane,
        "counts": {**asdict(job.counts), "waiting": job.counts.waiting},
        "failures": job.failures,
        "created_at": utc(job.created_ms),
        "started_at": job.started_ms and utc(job.started_ms),
        "finished_at": job.finished_ms and utc(job.finished_ms),
        "expires_at": utc(job.expires_ms),
        "metadata": job.metadata,
        "parent_job": job.parent_job,
        "keep_features": job.keep_features,
        "rescore_of": job.rescore_of,
        "thumbnails": job.thumbnails,
        "error": job.error and JOB_ERRORS[job.error],
    }
