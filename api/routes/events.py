"""GET /jobs/{id}/events: what becomes of a job, as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.errors import problems
from api.job_events import LOOK_EVERY_S, News
from api.ownership import OwnJobDep
from api.schemas import JobOut
from api.services import ServicesDep
from worker.jobs.errors import JobNotFound, LedgerUnavailable

PROGRESS_EVERY_S = 0.5

router = APIRouter(tags=["jobs"])

_EXAMPLE = """\
event: progress
data: {"id": "job_01JDAZ5T3V8RC0T8V1CGB6NMEX", "status": "running", "done": false, …}
id: running-251

: ping

event: done
data: {"id": "job_01JDAZ5T3V8RC0T8V1CGB6NMEX", "status": "succeeded", "done": true, …}
id: succeeded-1000
"""


# A dependency ends with its request, however that ends; a generator may be left hanging.
async def _news(job: OwnJobDep, services: ServicesDep) -> AsyncIterator[News]:
    with services.waiters.hearing(job.id) as news:
        yield news


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "The job as it stands, then again after each change",
            "content": {"text/event-stream": {"example": _EXAMPLE}},
        },
        **problems(401, 404, 503),
    },
)
async def watch_job(
    job: OwnJobDep, services: ServicesDep, news: Annotated[News, Depends(_news)]
) -> AsyncIterator[ServerSentEvent]:
    """Observer a job: `progress` at once and then at most twice a second, `done` at its end.

    The data is the job without results. The stream ends after `done`, or after `erased` where the
    job is deleted or expires meanwhile. Every connection begins with the job as it stands, so a
    client that was cut off connects again and misses nothing.
    """
    shown = None
    while True:
        try:
            job = await run_in_threadpool(services.store.job, job.id)
        except JobNotFound:
            yield ServerSentEvent(event="erased", id="erased", data={"id": job.id})
            return
        except LedgerUnavailable:
            pass  # The stream lives on: a browser does not come back after a 503.
        else:
            if job != shown:
                yield ServerSentEvent(
                    event="done" if job.status.done else "progress",
                    id=f"{job.status}-{job.counts.finished}",
                    data=JobOut.of(job),
                )
            if job.status.done:
                return
            shown = job
        if services.waiters.dismissed:
            return
        await news.wait(PROGRESS_EVERY_S, LOOK_EVERY_S)
