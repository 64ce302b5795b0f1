"""The routes of webhooks: their deliveries, replay, and the signing secret."""

from datetime import datetime
from typing import Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from api.auth import OwnerDep, OwnJobDep
from api.errors import problems
from api.services import ServicesDep
from worker.jobs.errors import JobNotDone, WebhookNotFound
from worker.jobs.record import Job, utc
from worker.jobs.webhooks.outbox import Attempt, HookRecord, HookState
from worker.jobs.webhooks.payload import webhook_id
from worker.jobs.webhooks.secrets import WebhookSecret

router = APIRouter(tags=["webhooks"])


class AttemptOut(BaseModel):
    """One delivery attempt: the status that the receiver returned, or the error."""

    at: datetime
    took_ms: int
    status_code: int | None
    error: str | None

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        """Convert a stored attempt."""
        return cls(
            at=utc(attempt.at_ms),
            took_ms=attempt.took_ms,
            status_code=attempt.status,
            error=attempt.error,
        )


class WebhookOut(BaseModel):
    """The webhook of a job."""

    url: str
    webhook_id: str = Field(description="Sent as `webhook-id`, the same for each attempt")
    state: HookState = Field(
        description="`gone`: the receiver returned 410. `given_up`: all attempts failed"
    )
    next_attempt_at: datetime | None = Field(
        description="While an attempt is in progress: when the next one follows if it fails"
    )
    attempts: list[AttemptOut] = Field(description="The latest 20, newest first")

    @classmethod
    def of(cls, job: Job, url: str, record: HookRecord) -> Self:
        """Describe the webhook of a job."""
        return cls(
            url=url,
            webhook_id=webhook_id(job.id),
            state=record.state,
            next_attempt_at=None if record.next_ms is None else utc(record.next_ms),
            attempts=[AttemptOut.of(attempt) for attempt in record.log],
        )


class WebhookSecretOut(BaseModel):
    """The secret that signs your webhooks."""

    secret: str
    previous_until: datetime | None = Field(
        description="Until then, webhooks are also signed with the previous secret"
    )

    @classmethod
    def of(cls, secret: WebhookSecret) -> Self:
        """Return a secret to its owner."""
        return cls(secret=secret.current, previous_until=secret.previous_until)


@router.get("/jobs/{job_id}/webhook", responses=problems(401, 404, 503))
def read_webhook(job: OwnJobDep, services: ServicesDep) -> WebhookOut:
    """Read the state and the delivery attempts of a job's webhook."""
    return WebhookOut.of(job, _url(job), services.outbox.record(job))


@router.post(
    "/jobs/{job_id}/webhook/replay",
    status_code=202,
    responses=problems(401, 404, 409, 503),
)
def replay_webhook(job: OwnJobDep, services: ServicesDep) -> WebhookOut:
    """Deliver the webhook of a finished job again, with the same id and a full set of retries."""
    url = _url(job)
    if not job.status.done:
        raise JobNotDone(f"{job.id} is {job.status}: replay its webhook once it is done")
    services.outbox.replay(job.id)
    return WebhookOut.of(job, url, services.outbox.record(job))


@router.get("/webhooks/secret", responses=problems(401, 503))
def read_webhook_secret(
    response: Response, services: ServicesDep, owner: OwnerDep
) -> WebhookSecretOut:
    """Read the secret that signs your webhooks; the first call creates it."""
    response.headers["Cache-Control"] = "no-store"
    return WebhookSecretOut.of(services.webhook_secrets.get(owner))


@router.post("/webhooks/secret/rotate", responses=problems(401, 503))
def rotate_webhook_secret(
    response: Response, services: ServicesDep, owner: OwnerDep
) -> WebhookSecretOut:
    """Create a new secret; for a day, webhooks are also signed with the previous one."""
    response.headers["Cache-Control"] = "no-store"
    return WebhookSecretOut.of(services.webhook_secrets.rotate(owner))


def _url(job: Job) -> str:
    if job.webhook_url is None:
        raise WebhookNotFound(f"{job.id} has no webhook: it was submitted without a webhook_url")
    return job.webhook_url
