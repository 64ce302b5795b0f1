"""One page of results."""

from collections.abc import Iterator

from api.results import cursors
from api.results.selection import Selection
from api.schemas import ResultsPage
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.results import ResultOut

# A page ends after this many results are read, however few of them are selected.
PAGE_SCAN_ITEMS = 20_000


def results_page(results: Iterator[StoredResult], selection: Selection, limit: int) -> ResultsPage:
    """Return the first `limit` results that are selected."""
    items: list[ResultOut] = []
    for scanned, stored in enumerate(results):
        view = selection.view(stored)
        if scanned == PAGE_SCAN_ITEMS or (view and len(items) == limit):
            return ResultsPage(items=items, next_cursor=cursors.to_index(stored.index))
        if view:
            items.append(ResultOut.of(*view))
    return ResultsPage(items=items)
