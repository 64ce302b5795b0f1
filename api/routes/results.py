"""The results of a job: in pages, or as one download in the format the caller likes."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import OwnerDep
from api.errors import problems
from api.openapi import result_examples
from api.ownership import own_job
from api.results import cursors, downloads
from api.results.cursors import PAGE_ITEMS
from api.results.formats import Format, choose
from api.results.lineage import ancestry, newest_results
from api.results.page import page_of
from api.results.selection import ResultsQuery, Selection
from api.results.table import Layout, Table
from api.schemas import ResultsPage
from api.services import ServicesDep
from worker.jobs.errors import ParameterInvalid

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}/results",
    response_model=ResultsPage,
    response_model_exclude_unset=True,
    responses={
        200: {
            "description": "A page of results, or all of them as a download",
            "content": result_examples.RESULTS,
        },
        **problems(400, 401, 404, 406, 409, 422, 501, 503),
    },
)
def read_results(
    job_id: str,
    request: Request,
    response: Response,
    services: ServicesDep,
    owner: OwnerDep,
    query: Annotated[ResultsQuery, Query()],
) -> Any:
    """Read the items that are finished, in the order they were submitted, at any time.

    `format`, or `Accept`, chooses between pages of JSON and a download of everything as JSONL, CSV
    or Parquet. Filters, `top_k` and `threshold` work on stored scores: no picture is scored again.
    A page may be shorter than `limit` while a filter leaves much out; it is the last one if it has
    no `next_cursor`.

    A table repeats the columns of a submitted CSV in their order; other items have `id`, then `url`
    (`filename` of uploads, `source` if a job has both), then their `columns` as they first came.
    Then follow `status`, a column a label, `labels` (in CSV joined by `;`), `error_code` and
    `error_detail`, each with `_` at its end if the input has a column of that name. A model with a
    `top_k` of its own has columns `top_1`, `score_1`, `top_2` and so on instead. In CSV, text
    that begins with `=`, `+`, `-`, `@`, tab or a line break gets a `'` before it, so that no
    spreadsheet runs it, unless it is a plain number such as -1.5.
    """
    job = own_job(services, owner, job_id)
    line = ancestry(services.store, job) if query.merge else [job]
    form, media_type = choose(query.format, request.headers.get("accept", ""))
    selection = Selection.of(services.store.model(job_id), query)
    headers = {"Vary": "Accept"}
    if form is Format.JSON:
        response.headers.update(headers)
        start = 0 if query.cursor is None else cursors.index(query.cursor)
        found = newest_results(services.store, line, start)
        return page_of(found, selection, query.limit or PAGE_ITEMS)
    if query.cursor is not None or query.limit is not None:
        raise ParameterInvalid(f"cursor and limit are for pages: {form} gives all results at once")
    shown = selection.of_all(newest_results(services.store, line))
    table = Table(line[0].csv or Layout().shape(), selection.model.labels, selection.ranks)
    match form:
        case Format.JSONL:
            blocks = downloads.jsonl(shown)
        case Format.CSV:
            blocks = downloads.csv_table(table, shown)
        case Format.PARQUET:
            blocks = downloads.parquet(table, shown)
    headers["Content-Disposition"] = f'attachment; filename="{job_id}.{form}"'
    return StreamingResponse(blocks, media_type=media_type, headers=headers)
