"""What a caller wants to see of results: which items, which labels, at which thresholds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

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
        description="`json` for pages, `jsonl`, `csv` or `parquet` for everything as one download; "
        "if unset, what `Accept` names",
    )
    cursor: str | None = Field(None, description="Pages: `next_cursor` of the page before")
    limit: int | None = Field(
        None, ge=1, le=MAX_PAGE_ITEMS, description="Pages: items on one, 100 if unset"
    )
    status: Literal["succeeded", "failed"] | None = Field(
        None, description="Only items that ended so"
    )
    label: str | None = Field(
        None, description="Only items that show this label in `labels`", examples=["beach"]
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="Only this many labels of an item, the best, sorted by score; if unset, as "
        "many as the model answers with: all, or its own `top_k`",
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="The score that makes a label, instead of the model's own"
    )
    merge: Literal["parents"] | None = Field(
        None, description="Of a retry: the items of the first job, each with its newest result"
    )


class Shown(NamedTuple):
    """One result as a caller sees it; a rejected item has neither scores nor labels."""

    stored: StoredResult
    scores: dict[str, float] | None
    labels: list[str] | None


@dataclass(frozen=True)
class Selection:
    """Which results are shown, and how much of each.

    The filter by `label` looks at the labels that are shown, so with a `top_k` of 1 it keeps the
    items of which it is the best.
    """

    model: ModelCard
    status: Literal["succeeded", "failed"] | None = None
    label: str | None = None
    top_k: int | None = None
    threshold: float | None = None

    @classmethod
    def of(cls, model: ModelCard, query: ResultsQuery | None = None) -> Self:
        """Select what `query` asks for, everything if there is none.

        Raises:
            ParameterInvalid: the model knows no such label.
        """
        query = query or ResultsQuery()
        if query.label is not None and query.label not in model.labels:
            some = ", ".join(model.labels[:LISTED_LABELS])
            more = ", …" if len(model.labels) > LISTED_LABELS else ""
            raise ParameterInvalid(f"there is no label {query.label!r}: the model has {some}{more}")
        return cls(model, query.status, query.label, query.top_k, query.threshold)

    @property
    def ranks(self) -> int | None:
        """How many best labels a table has, where it has not a column for each label."""
        if self.model.top_k is None:
            return None
        return min(self.top_k or self.model.top_k, len(self.model.labels))

    def show(self, stored: StoredResult) -> Shown | None:
        """Give what is shown of a result, None where it is left out."""
        scores = stored.result.scores
        if scores is None:
            left_out = self.status == "succeeded" or self.label is not None
            return None if left_out else Shown(stored, None, None)
        if self.status == "failed":
            return None
        answer, labels = self.model.answer(scores, self.top_k, self.threshold)
        if self.label is not None and self.label not in labels:
            return None
        return Shown(stored, answer, labels)

    def of_all(self, results: Iterable[StoredResult]) -> Iterator[Shown]:
        """Give what is shown of these results."""
        for stored in results:
            if (shown := self.show(stored)) is not None:
                yield shown
