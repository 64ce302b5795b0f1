"""The routes of webhooks: their deliveries, replay, and the signing secret."""

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import Field

from api.auth import OwnJobDep, SubmitterDep
from api.errors import problems
from api.intake.received import NoBodyDep
from api.job_view import require_done
from api.services import Services, ServicesDep
from worker.jobs.errors import WebhookNotFound
from worker.jobs.record import Job
from worker.jobs.results import Out
from worker.jobs.webhooks.outbox import HookState
from worker.jobs.webhooks.payload import webhook_id

router = APIRouter(tags=["webhooks"])


class AttemptOut(Out):
    """One delivery attempt: the status that the receiver returned, or the error."""

    at: datetime = Field(validation_alias="at_ms")
    took_ms: int
    status_code: int | None = Field(validation_alias="status")
    error: str | None


class WebhookOut(Out):
    """The webhook of a job."""

    url: str
    webhook_id: str = Field(description="Sent as `webhook-id`, the same for each attempt")
    state: HookState = Field(
        description="`gone`: the receiver returned 410. `given_up`: all attempts failed"
    )
    next_attempt_at: datetime | None = Field(
        validation_alias="next_ms",
        description="While an attempt is in progress: when the next one follows if it fails",
    )
    attempts: list[AttemptOut] = Field(
        validation_alias="log", description="The latest 20, newest first"
    )


class WebhookSecretOut(Out):
    """The secret that signs your webhooks."""

    secret: str = Field(validation_alias="current")
    previous_until: datetime | None = Field(
        description="Until then, webhooks are also signed with the previous secret"
    )


@router.get("/jobs/{job_id}/webhook", responses=problems(401, 404, 503))
def read_webhook(job: OwnJobDep, services: ServicesDep) -> WebhookOut:
    """Read the state and the delivery attempts of a job's webhook."""
    return _view(services, job)


@router.post(
    "/jobs/{job_id}/webhook/replay",
    status_code=202,
    responses=problems(401, 404, 408, 409, 413, 415, 422, 503),
)
def replay_webhook(job: OwnJobDep, services: ServicesDep, _no_body: NoBodyDep) -> WebhookOut:
    """Deliver the webhook of a finished job again, with the same id and a full set of retries."""
    _view(services, job)  # a job without a webhook is refused first
    require_done(job, "replay its webhook")
    services.outbox.replay(job.id)
    return _view(services, job)


@router.get("/webhooks/secret", responses=problems(401, 503))
def read_webhook_secret(
    response: Response, services: ServicesDep, caller: SubmitterDep
) -> WebhookSecretOut:
    """Read the secret that signs your webhooks; the first call creates it."""
    response.headers["Cache-Control"] = "no-store"
    return WebhookSecretOut.model_validate(services.webhook_secrets.get(caller.owner))


@router.post("/webhooks/secret/rotate", responses=problems(401, 408, 413, 415, 422, 503))
def rotate_webhook_secret(
    response: Response, services: ServicesDep, caller: SubmitterDep, _no_body: NoBodyDep
) -> WebhookSecretOut:
    """Create a new secret; for a day, webhooks are also signed with the previous one."""
    response.headers["Cache-Control"] = "no-store"
    return WebhookSecretOut.model_validate(services.webhook_secrets.rotate(caller.owner))


def _view(services: Services, job: Job) -> WebhookOut:
    if job.webhook_url is None:
        raise WebhookNotFound(
            f"{job.id} was submitted without a webhook_url: read its results instead"
        )
    given = {"url": job.webhook_url, "webhook_id": webhook_id(job.id)}
    return WebhookOut.model_validate(given | vars(services.outbox.record(job)))
