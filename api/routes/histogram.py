"""GET /jobs/{id}/histogram: how the scores of a job are distributed."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import READ_SLOT, CallerDep, own_job
from api.errors import problems
from api.results import cursors
from api.results.cursors import CursorQuery
from api.results.histogram import HistogramPage, histogram_page
from api.results.selection import MAX_NAMED_LABELS, label_index
from api.services import ServicesDep
from worker.jobs.errors import ParameterInvalid

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}/histogram",
    dependencies=[READ_SLOT],
    responses=problems(400, 401, 404, 422, 503),
)
def read_histogram(
    job_id: str,
    services: ServicesDep,
    caller: CallerDep,
    label: Annotated[
        list[str],
        Query(
            max_length=MAX_NAMED_LABELS,
            description="Only this label; repeat it for several. Needed if the model has more than "
            "20 labels",
        ),
    ] = [],  # noqa: B006 - FastAPI copies it
    cursor: CursorQuery = None,
) -> HistogramPage:
    """Count the stored scores of each label in 100 bins; no picture is scored again.

    A page counts up to 20,000 results in the order of submission. Add the counts of all pages. For
    a job that runs, it counts the results so far. With a threshold of two decimals, the counts tell
    exactly how many items are on either side.
    """
    job = own_job(services, caller, job_id)
    model = services.store.model(job_id)
    if not label and len(model.labels) > MAX_NAMED_LABELS:
        raise ParameterInvalid(
            f"label: this model has {len(model.labels)} labels: name up to {MAX_NAMED_LABELS} of "
            "them"
        )
    indexes = [label_index(model, "label", one) for one in label or model.labels]
    return histogram_page(services.store.results(job, cursors.index(cursor)), model, indexes)
