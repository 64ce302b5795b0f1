"""GET /jobs/{id}/results: the results of a job in pages, or as one download."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import READ_SLOT, CallerDep, own_job
from api.errors import problems
from api.formats import Format, choose
from api.openapi.literals import RESULTS
from api.results import cursors, downloads
from api.results.cursors import PAGE_ITEMS
from api.results.embeddings import Embeddings
from api.results.lineage import ancestry, newest_results
from api.results.page import results_page
from api.results.selection import ResultsQuery, Selection
from api.results.table import Layout, Table
from api.schemas import ResultsPage
from api.services import ServicesDep
from worker.jobs.errors import ParameterInvalid, ResultsChanged

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}/results",
    dependencies=[READ_SLOT],
    response_model=ResultsPage,
    response_model_exclude_unset=True,
    responses={
        200: {
            "description": "A page of results, or all of them as a download",
            "content": RESULTS,
        },
        **problems(400, 401, 404, 406, 409, 412, 422, 501, 503),
    },
)
def read_results(
    job_id: str,
    request: Request,
    response: Response,
    services: ServicesDep,
    caller: CallerDep,
    query: Annotated[ResultsQuery, Query()],
    if_match: Annotated[str | None, Header()] = None,
) -> Any:
    """Read the finished items in the order of submission, also while the job runs.

    `format` or `Accept` selects pages of JSON, or one download of all results as JSONL, CSV or
    Parquet. Filters, `top_k` and `threshold` work on stored scores: no picture is scored again.
    With a filter, a page may have fewer items than `limit`; the last page is the one without
    `next_cursor`.

    A download of a finished job as JSONL or CSV has an `ETag`. If it breaks, send the request again
    with `offset`, the bytes that you have after decompression, and this tag as `If-Match`. There is
    no `Range`: it would have to state the length of the rest before any of it is made.

    The tables (CSV and Parquet) begin with the columns of the submitted CSV, in their order. Items
    that did not come as CSV have `id`, then `url` (`filename` for uploads, `source` if a job has
    both), then their `columns` in the order of first use. The columns `status`, one for each label,
    `labels` (in CSV joined by `;`), `error_code` and `error_detail` follow. If the input has a
    column of one of these names, the added one gets `_` at its end. A model with `top_k` has the
    columns `top_1`, `score_1`, `top_2` and so on instead of one for each label. In a job of several
    models, all these names begin with that of the model, as in `scenes/beach`.

    In Parquet, a submitted column is int64 or double if it has nothing but numbers and empty cells,
    which become null. This is decided over all items when the job is submitted, so the type is the
    same whatever is selected, and for the retries of the job. Numbers have digits and a decimal
    point: at most 15 digits, no `+`, exponent or thousands separator, and no leading zeros. The id
    and columns with any other cell stay text, as do all columns in JSONL. In CSV, text that
    begins with `=`, `+`, `-`, `@`, tab or a line break is prefixed with `'`, so that no spreadsheet
    evaluates it, unless it is a plain number such as -1.5. The same holds for the full-width forms
    of these signs, and for text that begins with invisible characters such as a byte order mark.
    """
    job = own_job(services, caller, job_id)
    line = ancestry(services.store, job) if query.merge else [job]
    form, media_type = choose(query.format, request.headers.get("accept", ""))
    selection = Selection(services.store.model(job_id), query)
    headers = {"Vary": "Accept"}
    tag = None if form is Format.JSON else downloads.version(line, form, query)
    # A proxy that compresses makes the tag a weak one.
    if if_match is not None and if_match.removeprefix("W/") != tag:
        raise ResultsChanged(
            "these results are not those of the ETag in If-Match: download them from the beginning"
        )
    if query.offset is not None and tag is None:
        raise ParameterInvalid(
            "offset is for JSONL and CSV of a job that is done: download from the beginning"
        )
    if form is Format.JSON and not query.embeddings:
        response.headers.update(headers)
        found = newest_results(services.store, line, cursors.index(query.cursor))
        return results_page(found, selection, query.limit or PAGE_ITEMS)
    if query.cursor is not None or query.limit is not None:
        raise ParameterInvalid(
            f"cursor and limit are for pages of JSON: remove them to download {form}"
        )
    if query.include and form is not Format.JSONL:
        raise ParameterInvalid(f"include is for JSON and JSONL: remove it to download {form}")
    embeddings = None
    if query.embeddings:
        if form is not Format.PARQUET or query.merge:
            raise ParameterInvalid(
                "embeddings is for Parquet, of one job: use format=parquet, without merge"
            )
        embeddings = Embeddings(services.blobs, job, selection.model)
    views = selection.views(newest_results(services.store, line))
    table = Table(line[0].csv or Layout().shape(), selection.columns)
    match form:
        case Format.JSONL:
            blocks = downloads.jsonl(views)
        case Format.CSV:
            blocks = downloads.csv_table(table, views)
        case Format.PARQUET:
            blocks = downloads.parquet(table, views, embeddings)
    if tag is not None:
        headers["ETag"] = tag
        blocks = downloads.rest(blocks, query.offset or 0)
    headers["Content-Disposition"] = f'attachment; filename="{job_id}.{form}"'
    sent = services.download_threads.each(caller.owner, blocks)
    return StreamingResponse(sent, media_type=media_type, headers=headers)
