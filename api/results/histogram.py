"""How the scores of a job are distributed: counts for each label and bin."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, Field

from api.results import cursors
from api.results.page import PAGE_SCAN_ITEMS
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.models.artifact import ModelCard

BINS = 100
# A bin begins at the number that a caller writes with two decimals, so that no score is counted on
# the other side of it: 0.29 * 100 is less than 29.
_EDGES = [edge / BINS for edge in range(1, BINS)]


def bin_of(score: float) -> int:
    """The bin that counts a score."""
    return bisect_right(_EDGES, score)


class LabelHistogram(BaseModel):
    """The scores of one label."""

    threshold: float = Field(description="That of the model")
    counts: list[int] = Field(
        description="Items in each of 100 bins: the first counts scores from 0 to less than 0.01, "
        "the last those from 0.99 to 1"
    )


class HistogramPage(BaseModel):
    """The scores of up to 20,000 results; the counts of all pages add up to those of the job."""

    scored: int = Field(description="Results with scores on this page")
    labels: dict[str, LabelHistogram]
    next_cursor: str | None = Field(None, description="Null on the last page")


def histogram_page(
    results: Iterator[StoredResult],
    model: ModelCard,
    indexes: Sequence[int],
    most_items: int = PAGE_SCAN_ITEMS,
) -> HistogramPage:
    """Count the scores of the labels at these indexes, of the first `most_items` results."""
    counts = {index: [0] * BINS for index in indexes}
    scored, cursor = 0, None
    for scanned, stored in enumerate(results):
        if scanned == most_items:
            cursor = cursors.to_index(stored.index)
            break
        scores = stored.result.scores
        if scores is None:
            continue
        scored += 1
        for index, bins in counts.items():
            bins[bin_of(scores[index])] += 1
    labels = {
        model.labels[index]: LabelHistogram(threshold=model.thresholds[index], counts=bins)
        for index, bins in counts.items()
    }
    return HistogramPage(scored=scored, labels=labels, next_cursor=cursor)
