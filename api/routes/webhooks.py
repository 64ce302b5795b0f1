"""The routes of webhooks: how a delivery went, replay, and the secret that signs."""

from datetime import datetime
from typing import Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.auth import OwnerDep
from api.errors import problems
from api.ownership import OwnJobDep
from api.services import ServicesDep
from worker.jobs.errors import JobNotDone, WebhookNotFound
from worker.jobs.record import Job, utc
from worker.jobs.webhooks.outbox import Attempt, HookRecord, HookState
from worker.jobs.webhooks.payload import webhook_id
from worker.jobs.webhooks.secrets import WebhookSecret

router = APIRouter(tags=["webhooks"])

_WEBHOOK: JsonDict = {
    "url": "https://example.com/piqueue?token=1f0c",
    "webhook_id": "msg_01M81QHC2PSQY738DHJF0EYRK9",
    "state": "pending",
    "next_attempt_at": "2026-11-22T14:00:50Z",
    "attempts": [
        {
            "at": "2026-11-22T14:00:05Z",
            "took_ms": 15003,
            "status_code": None,
            "error": "fetch_timeout",
        },
        {"at": "2026-11-22T14:00:00Z", "took_ms": 84, "status_code": 500, "error": None},
    ],
}
_SECRET: JsonDict = {
    "secret": "whsec_dGhpcyBpcyBhbiBleGFtcGxlLCBhbmQgbm8gc2VjcmV0",
    "previous_until": "2026-11-23T14:00:00Z",
}


class AttemptOut(BaseModel):
    """One attempt at a delivery: what the receiver answered, or why it did not."""

    at: datetime
    took_ms: int
    status_code: int | None
    error: str | None

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        """Show a logged attempt."""
        return cls(
            at=utc(attempt.at_ms),
            took_ms=attempt.took_ms,
            status_code=attempt.status,
            error=attempt.error,
        )


class WebhookOut(BaseModel):
    """The webhook of a job."""

    model_config = ConfigDict(json_schema_extra={"examples": [_WEBHOOK]})

    url: str
    webhook_id: str = Field(description="Sent as `webhook-id`, the same with each attempt")
    state: HookState = Field(
        description="`gone`: the receiver answered 410; `given_up`: no attempt is left"
    )
    next_attempt_at: datetime | None = Field(
        description="While an attempt is under way, when the next is if nothing comes of it"
    )
    attempts: list[AttemptOut] = Field(description="The latest 20, newest first")

    @classmethod
    def of(cls, job: Job, url: str, record: HookRecord) -> Self:
        """Show the webhook of a job."""
        return cls(
            url=url,
            webhook_id=webhook_id(job.id),
            state=record.state,
            next_attempt_at=None if record.next_ms is None else utc(record.next_ms),
            attempts=[AttemptOut.of(attempt) for attempt in record.log],
        )


class WebhookSecretOut(BaseModel):
    """The secret that your webhooks are signed with."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SECRET]})

    secret: str
    previous_until: datetime | None = Field(
        description="The secret before the last rotation signs as well until then"
    )

    @classmethod
    def of(cls, secret: WebhookSecret) -> Self:
        """Show a secret to its owner."""
        return cls(secret=secret.current, previous_until=secret.previous_until)


@router.get("/jobs/{job_id}/webhook", responses=problems(401, 404, 503))
def read_webhook(job: OwnJobDep, services: ServicesDep) -> WebhookOut:
    """Read how the delivery of a job's webhook went."""
    return WebhookOut.of(job, _url(job), services.outbox.record(job))


@router.post(
    "/jobs/{job_id}/webhook/replay",
    status_code=202,
    responses=problems(401, 404, 409, 503),
)
def replay_webhook(job: OwnJobDep, services: ServicesDep) -> WebhookOut:
    """Deliver the webhook of a finished job again, under the same id, with all retries anew."""
    url = _url(job)
    if not job.status.done:
        raise JobNotDone(f"{job.id} is not done yet, and its webhook is sent when it is")
    services.outbox.replay(job.id)
    return WebhookOut.of(job, url, services.outbox.record(job))


@router.get("/webhooks/secret", responses=problems(401, 503))
def read_webhook_secret(
    response: Response, services: ServicesDep, owner: OwnerDep
) -> WebhookSecretOut:
    """Read the secret that signs your webhooks; the first call makes it."""
    response.headers["Cache-Control"] = "no-store"
    return WebhookSecretOut.of(services.webhook_secrets.get(owner))


@router.post("/webhooks/secret/rotate", responses=problems(401, 503))
def rotate_webhook_secret(
    response: Response, services: ServicesDep, owner: OwnerDep
) -> WebhookSecretOut:
    """Make a new secret; for a day, what is sent is signed with the one before as well."""
    response.headers["Cache-Control"] = "no-store"
    return WebhookSecretOut.of(services.webhook_secrets.rotate(owner))


def _url(job: Job) -> str:
    if job.webhook_url is None:
        raise WebhookNotFound(f"{job.id} was submitted without a webhook_url")
    return job.webhook_url
