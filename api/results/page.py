"""One page of results."""

from collections.abc import Iterator

from api.results import cursors
from api.results.selection import Selection
from api.schemas import ResultOut, ResultsPage
from worker.jobs.ledger.reader import StoredResult

# A page that reads this many results returns what it has selected so far.
PAGE_SCAN_ITEMS = 20_000


def page_of(results: Iterator[StoredResult], selection: Selection, limit: int) -> ResultsPage:
    """Give up to `limit` of the results that are selected, from where `results` begin."""
    items: list[ResultOut] = []
    for scanned, stored in enumerate(results):
        if scanned == PAGE_SCAN_ITEMS:
            return ResultsPage(items=items, next_cursor=cursors.to_index(stored.index))
        if (shown := selection.show(stored)) is None:
            continue
        if len(items) == limit:
            return ResultsPage(items=items, next_cursor=cursors.to_index(stored.index))
        items.append(ResultOut.of(*shown))
    return ResultsPage(items=items)
