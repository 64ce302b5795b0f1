"""GET /jobs/{id}/events: the progress of a job as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.auth import OwnJobDep
from api.errors import problems
from api.job_events import REREAD_EVERY_S, Subscription
from api.openapi.literals import EVENTS
from api.schemas import JobOut
from api.services import Services, ServicesDep
from worker.jobs.errors import JobNotFound, LedgerUnavailable
from worker.jobs.ledger.load import QueuePosition
from worker.jobs.record import Job

PROGRESS_EVERY_S = 0.5

router = APIRouter(tags=["jobs"])


# A dependency ends with its request, however that ends; a generator may never be closed.
async def _subscribe(job: OwnJobDep, services: ServicesDep) -> AsyncIterator[Subscription]:
    with services.job_events.subscribe(job.id) as subscription:
        yield subscription


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "The job as it is now, then again after each change",
            "content": {"text/event-stream": {"example": EVENTS}},
        },
        **problems(401, 404, 503),
    },
)
async def stream_events(
    job: OwnJobDep,
    services: ServicesDep,
    subscription: Annotated[Subscription, Depends(_subscribe)],
) -> AsyncIterator[ServerSentEvent]:
    """Follow a job: `progress` at once and then at most twice a second, `done` at its end.

    The data is the job without results. The stream ends after `done`, or after `erased` if the
    job is deleted or expires. Every connection begins with the job as it is now, so a client that
    loses its connection reconnects and misses nothing.
    """
    sent = None
    while True:
        try:
            job, place = await run_in_threadpool(_read, services, job.id)
        except JobNotFound:
            yield ServerSentEvent(event="erased", id="erased", data={"id": job.id})
            return
        except LedgerUnavailable:
            pass  # Keep the stream open: browsers do not reconnect after a 503.
        else:
            if (job, place) != sent:
                yield ServerSentEvent(
                    event="done" if job.status.done else "progress",
                    id=f"{job.status}-{job.counts.finished}",
                    data=JobOut.of(job, place=place),
                )
            if job.status.done:
                return
            sent = (job, place)
        if services.job_events.shutting_down:
            return
        await subscription.wait(PROGRESS_EVERY_S, REREAD_EVERY_S)


def _read(services: Services, job_id: str) -> tuple[Job, QueuePosition | None]:
    job = services.store.job(job_id)
    return job, services.load.queue_position(job)
