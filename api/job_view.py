"""A job as the routes return it: with its first results once done, before that with Retry-After."""

from functools import partial

from api.results.cursors import PAGE_ITEMS
from api.results.page import results_page
from api.results.selection import Selection
from api.schemas import JobOut
from api.services import Services
from worker.jobs.errors import JobNotDone
from worker.jobs.ledger.reader import JobWithResults
from worker.jobs.record import Job, JobStatus

POLL_S = 1


def job_view(services: Services, job_id: str) -> JobOut:
    """Read a job, with the first page of its results once it is done.

    Raises:
        JobNotFound: there is no such job, or it has expired.
    """
    return _view(services.store.job_and_results(job_id))


def _view(found: JobWithResults) -> JobOut:
    job, model, results = found
    if not job.status.done:
        return JobOut.of(job)
    page = results_page(results, Selection(model), PAGE_ITEMS)
    return JobOut.of(job, page.items)


def require_done(job: Job, action: str) -> None:
    """Raise JobNotDone if a job is not done, or was never submitted; `action` is what waits."""
    if job.status is JobStatus.DRAFT:
        raise JobNotDone(f"{job.id} was never submitted: submit it, then {action} once it is done")
    if not job.status.done:
        raise JobNotDone(f"{job.id} is {job.status}: wait until it is done, then {action}")


async def wait_for_job(services: Services, job_id: str, timeout_s: float) -> JobOut:
    """Read a job as `job_view` does once it is done, or after `timeout_s`."""

    def at_end(event: bytes) -> JobOut | None:
        found = services.store.ended_job(event)
        return None if found is None else _view(found)

    read = partial(job_view, services, job_id)
    return await services.job_events.wait_done(job_id, read, timeout_s, at_end)


def retry_after(job: JobOut) -> dict[str, str]:
    """Return the header that says when to poll again for a job that is not done."""
    return {} if job.done else {"Retry-After": str(POLL_S)}
