"""Which results a caller wants: which items, how many labels, at which thresholds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from api.results.cursors import MAX_PAGE_ITEMS
from api.results.formats import Format
from worker.jobs.errors import ParameterInvalid
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.models.catalog import ModelCard

LISTED_LABELS = 50


class ResultsQuery(BaseModel):
    """The query parameters of results."""

    model_config = ConfigDict(extra="forbid")

    format: Format | None = Field(
        None,
        description="`json` returns pages; `jsonl`, `csv` and `parquet` return all results as one "
        "download. Default: the format that `Accept` names",
    )
    cursor: str | None = Field(None, description="Pages: `next_cursor` of the previous page")
    limit: int | None = Field(
        None, ge=1, le=MAX_PAGE_ITEMS, description="Pages: the most items on a page. Default: 100"
    )
    offset: int | None = Field(
        None,
        ge=0,
        description="JSONL and CSV of a finished job: leave out this many bytes, to go on with a "
        "download that broke. Send its `ETag` as `If-Match`",
    )
    status: Literal["succeeded", "failed"] | None = Field(
        None, description="Only items with this status"
    )
    label: str | None = Field(
        None, description="Only items that have this label in `labels`", examples=["beach"]
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="Only the best scores of each item, this many, highest first. Default: the "
        "model's own `top_k`, or all scores",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="The lowest score of a label, instead of the model's thresholds",
    )
    merge: Literal["parents"] | None = Field(
        None,
        description="`parents`: return the items of the first job, each with its newest result. "
        "For retries",
    )


class ResultView(NamedTuple):
    """One result as a caller sees it; a failed item has neither scores nor labels."""

    stored: StoredResult
    scores: dict[str, float] | None
    labels: list[str] | None


@dataclass(frozen=True)
class Selection:
    """Which results a caller sees, and how much of each.

    The filter by `label` applies to the labels that are left, so with a `top_k` of 1 it selects
    the items whose best label it is.

    Raises:
        ParameterInvalid: the model has no such label.
    """

    model: ModelCard
    query: ResultsQuery = field(default_factory=ResultsQuery)

    def __post_init__(self) -> None:
        label, labels = self.query.label, self.model.labels
        if label is not None and label not in labels:
            some = ", ".join(labels[:LISTED_LABELS])
            more = ", …" if len(labels) > LISTED_LABELS else ""
            raise ParameterInvalid(f"label: this model has no {label!r}: use one of {some}{more}")

    @property
    def ranks(self) -> int | None:
        """How many ranks a table has, for a model with `top_k`; None if it has a column a label."""
        if self.model.top_k is None:
            return None
        return min(self.query.top_k or self.model.top_k, len(self.model.labels))

    def view(self, stored: StoredResult) -> ResultView | None:
        """Return the view of a result, or None if it is not selected."""
        scores, query = stored.result.scores, self.query
        if scores is None:
            filtered = query.status == "succeeded" or query.label is not None
            return None if filtered else ResultView(stored, None, None)
        if query.status == "failed":
            return None
        answer, labels = self.model.answer(scores, query.top_k, query.threshold)
        if query.label is not None and query.label not in labels:
            return None
        return ResultView(stored, answer, labels)

    def views(self, results: Iterable[StoredResult]) -> Iterator[ResultView]:
        """Return the views of the selected results."""
        return (view for stored in results if (view := self.view(stored)) is not None)
