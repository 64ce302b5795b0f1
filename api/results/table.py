"""Results as a table: the columns of the input, then those of the result."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from api.results.selection import ResultView, ScoreColumns
from worker.jobs.items import ItemSpec
from worker.jobs.record import CsvShape

MAX_COLUMNS = 1000


class Layout:
    """The table of items that did not come as CSV: id, URL or file name, then their columns."""

    def __init__(self) -> None:
        self._columns: dict[str, None] = {}
        self._has_urls = self._has_files = False

    def add(self, spec: ItemSpec) -> str | None:
        """Add an item's columns; return what is wrong with it, or None."""
        self._has_urls |= spec.url is not None
        self._has_files |= spec.url is None
        new = spec.columns.keys() - self._columns.keys() if spec.columns else ()
        if len(self._columns) + len(new) > MAX_COLUMNS:
            return f"with this item, the job has more than {MAX_COLUMNS} columns of different names"
        if new:
            self._columns.update(dict.fromkeys(spec.columns or ()))
        return None

    def shape(self) -> CsvShape:
        """Return the table of all items so far."""
        uploads = "source" if self._has_urls else "filename"
        source = uploads if self._has_files else "url"
        id_column, source = free_names(("id", source), self._columns)
        return CsvShape((id_column, source, *self._columns), source, id_column)


class Table:
    """The rows of results; the first `input_count` columns of `header` are those of the input.

    A result column whose name the input has already gets `_` at its end. Scores have one column a
    label; with ranks, they have that many pairs of columns instead, the best label and its score
    first.
    """

    def __init__(self, shape: CsvShape, columns: Sequence[ScoreColumns]) -> None:
        self._columns = columns
        # The name of each score column, and whether it is numeric.
        self.scores: list[tuple[str, bool]] = []
        for labels, ranks, prefix in columns:
            if ranks is None:
                self.scores += [(label, True) for label in labels]
            for rank in range(1, (ranks or 0) + 1):
                self.scores += [(f"{prefix}top_{rank}", False), (f"{prefix}score_{rank}", True)]
        scores = [name for name, _ in self.scores]
        added = ("status", *scores, "labels", "error_code", "error_detail")
        self.input_count = len(shape.header)
        # The kind of each submitted column, None for text.
        self.input_kinds = [shape.numbers.get(name) for name in shape.header]
        self.header = (*shape.header, *free_names(added, shape.header))
        self._input = shape.header
        self._source_at = shape.header.index(shape.url_column)
        self._id_at = None if shape.id_column is None else shape.header.index(shape.id_column)

    def cells(self, view: ResultView) -> list[Any]:
        """Return one row: text or None, but numbers for scores and a list for `labels`."""
        spec, rejection = view.stored.spec, view.stored.result.rejection
        columns, scores = spec.columns or {}, view.scores or {}
        row: list[Any] = [columns.get(name) for name in self._input]
        row[self._source_at] = spec.filename if spec.url is None else spec.url
        if self._id_at is not None:
            row[self._id_at] = spec.id
        row.append("failed" if rejection else "succeeded")
        for labels, ranks, prefix in self._columns:
            if ranks is None:
                row += [scores.get(label) for label in labels]
                continue
            pairs = (pair for pair in scores.items() if pair[0].startswith(prefix))
            best = [part for pair in pairs for part in pair]
            row += best + [None] * (2 * ranks - len(best))
        row.append(view.labels)
        row += [rejection.code.value, rejection.detail] if rejection else [None, None]
        return row


def free_names(names: Iterable[str], taken: Collection[str]) -> list[str]:
    """Return the names, each with as many `_` at its end as it needs to be unique."""
    used, free = set(taken), []
    for name in names:
        while name in used:
            name += "_"
        used.add(name)
        free.append(name)
    return free
