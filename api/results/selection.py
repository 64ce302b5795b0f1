"""Which results a caller wants: which items, how many labels, at which thresholds."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from api.formats import Format
from api.results.cursors import MAX_PAGE_ITEMS
from worker.jobs.errors import ParameterInvalid
from worker.jobs.items import ItemSpec, RejectionCode
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.models.artifact import ModelCard

LISTED_LABELS = 50
MAX_NAMED_LABELS = 20


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
        description="JSONL and CSV of a finished job: skip this many bytes, to resume a "
        "download. Send its `ETag` as `If-Match`",
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
    search: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Only items whose id, URL or file name contains this text, regardless of case",
    )
    error: RejectionCode | None = Field(None, description="Only items that failed with this code")
    above: list[str] = Field(
        [],
        max_length=MAX_NAMED_LABELS,
        description="Only items whose score of this label is at least this number, as "
        "`label:number`. Repeat it to combine labels",
        examples=[["beach:0.4"]],
    )
    below: list[str] = Field(
        [],
        max_length=MAX_NAMED_LABELS,
        description="Only items whose score of this label is lower than this number, as "
        "`label:number`. Repeat it to combine labels",
        examples=[["city:0.4"]],
    )
    include: list[str] = Field(
        [],
        max_length=MAX_NAMED_LABELS,
        description="JSON and JSONL: the scores of these labels too, where `top_k` leaves them out",
        examples=[["sunset"]],
    )
    embeddings: bool | None = Field(
        None,
        description="Parquet: add the columns `sha256`, the hash of the picture, `embedding`, its "
        "kept features as float32, and `embedding_variant`, the variant that gave them. For jobs "
        "with `keep_features`",
    )
    merge: Literal["parents"] | None = Field(
        None,
        description="`parents`: return the items of the first job, each with its newest result. "
        "For retries",
    )


class ScoreColumns(NamedTuple):
    """How a table shows the scores of a model: a column for each label, or `ranks` pairs of
    columns, whose names begin with `prefix`.
    """

    labels: Sequence[str]
    ranks: int | None = None
    prefix: str = ""


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
    # Bounds by the index of their label.
    _above: list[tuple[int, float]] = field(init=False)
    _below: list[tuple[int, float]] = field(init=False)
    _included: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        if self.query.label is not None:
            label_index(self.model, "label", self.query.label)
        object.__setattr__(self, "_above", self._bounds("above", self.query.above))
        object.__setattr__(self, "_below", self._bounds("below", self.query.below))
        included = {
            label: label_index(self.model, "include", label) for label in self.query.include
        }
        object.__setattr__(self, "_included", included)

    def _bounds(self, parameter: str, texts: list[str]) -> list[tuple[int, float]]:
        """Read each `label:number` as the index of the label and the number."""
        found = []
        for text in texts:
            label, _, number = text.rpartition(":")
            try:
                bound = float(number)
            except ValueError:
                bound = math.nan
            if not 0 <= bound <= 1:
                raise ParameterInvalid(
                    f"{parameter}: {text!r} does not end with a number from 0 to 1: write it as "
                    "label:number, such as beach:0.4"
                )
            found.append((label_index(self.model, parameter, label), bound))
        return found

    @property
    def columns(self) -> list[ScoreColumns]:
        """The score columns of a table, for each model."""
        found, first = [], 0
        for part in self.model.parts or (self.model,):
            labels = self.model.labels[first : first + len(part.labels)]
            first += len(part.labels)
            ranks = part.top_k and min(self.query.top_k or part.top_k, len(labels))
            prefix = f"{part.name}/" if self.model.parts else ""
            found.append(ScoreColumns(labels, ranks, prefix))
        return found

    def view(self, stored: StoredResult) -> ResultView | None:
        """Return the view of a result, or None if it is not selected."""
        query = self.query
        if query.search is not None and not _is_named(stored.spec, query.search.lower()):
            return None
        scores, rejection = stored.result.scores, stored.result.rejection
        if query.error is not None and (rejection is None or rejection.code != query.error):
            return None
        if scores is None:
            scored_only = query.status == "succeeded" or query.label is not None
            filtered = scored_only or self._above or self._below
            return None if filtered else ResultView(stored, None, None)
        if query.status == "failed" or not self._is_within(scores):
            return None
        answer, labels = self.model.answer(scores, query.top_k, query.threshold)
        if query.label is not None and query.label not in labels:
            return None
        for label, index in self._included.items():
            answer.setdefault(label, scores[index])
        return ResultView(stored, answer, labels)

    def _is_within(self, scores: Sequence[float]) -> bool:
        return all(scores[index] >= bound for index, bound in self._above) and all(
            scores[index] < bound for index, bound in self._below
        )

    def views(self, results: Iterable[StoredResult]) -> Iterator[ResultView]:
        """Return the views of the selected results."""
        return (view for stored in results if (view := self.view(stored)) is not None)


def label_index(model: ModelCard, parameter: str, label: str) -> int:
    """Return the place of a label in the scores of a model.

    Raises:
        ParameterInvalid: the model has no such label; the message names the query parameter.
    """
    try:
        return model.labels.index(label)
    except ValueError:
        some = ", ".join(model.labels[:LISTED_LABELS])
        more = ", …" if len(model.labels) > LISTED_LABELS else ""
        raise ParameterInvalid(
            f"{parameter}: this model has no {label!r}: use one of {some}{more}"
        ) from None


def _is_named(spec: ItemSpec, text: str) -> bool:
    return any(text in name.lower() for name in (spec.id, spec.url, spec.filename) if name)
