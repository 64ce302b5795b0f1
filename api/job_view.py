"""A job as routes answer with it: with first results once done, else with when to ask again."""

from api.results.cursors import PAGE_ITEMS
from api.results.page import page_of
from api.results.selection import Selection
from api.schemas import JobOut
from api.services import Services

POLL_S = 1


def show(services: Services, job_id: str) -> JobOut:
    """Show a job as it stands, with the first page of its results once it is done.

    Raises:
        JobNotFound: there is none of this id, or it has expired.
    """
    job, model = services.store.job_and_model(job_id)
    if not job.status.done:
        return JobOut.of(job)
    page = page_of(services.store.results(job), Selection.of(model), PAGE_ITEMS)
    return JobOut.of(job, page.items)


def retry_after(job: JobOut) -> dict[str, str]:
    """Give the header that says when to ask again for a job that is not done."""
    return {} if job.done else {"Retry-After": str(POLL_S)}
