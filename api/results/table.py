"""Items and their results as a table: the columns of the input first, then those of the result."""

from collections.abc import Collection, Iterable
from typing import Any

from api.results.selection import Shown
from worker.jobs.items import ItemSpec
from worker.jobs.record import CsvShape

MAX_COLUMNS = 1000


class Layout:
    """Lays out items that came as no table: id, URL or file name, columns as they first came."""

    def __init__(self) -> None:
        self._columns: dict[str, None] = {}
        self._has_urls = self._has_files = False

    def add(self, spec: ItemSpec) -> str | None:
        """Take note of an item, or say what is wrong with it."""
        self._has_urls |= spec.url is not None
        self._has_files |= spec.url is None
        new = spec.columns.keys() - self._columns.keys() if spec.columns else ()
        if len(self._columns) + len(new) > MAX_COLUMNS:
            return f"the items have more than {MAX_COLUMNS} columns of different names"
        if new:
            self._columns.update(dict.fromkeys(spec.columns or ()))
        return None

    def shape(self) -> CsvShape:
        """Give the layout of all items so far."""
        uploads = "source" if self._has_urls else "filename"
        source = uploads if self._has_files else "url"
        id_column, source = free_names(("id", source), self._columns)
        return CsvShape((id_column, source, *self._columns), source, id_column)


class Table:
    """The rows of results: `header` names the columns, the first `input_count` the input's.

    Where the input has a column named as one of ours, ours ends in `_`. The scores have a column
    a label; with `ranks`, that many pairs of columns instead, the best label and its score first.
    """

    def __init__(self, shape: CsvShape, labels: Collection[str], ranks: int | None = None) -> None:
        self._labels, self._ranks = tuple(labels), ranks
        # Of each column of scores: its name, and whether it holds numbers.
        self.scores = [(label, True) for label in labels]
        if ranks:
            pairs = [(("top", False), ("score", True))] * ranks
            self.scores = [
                (f"{name}_{rank}", number)
                for rank, pair in enumerate(pairs, start=1)
                for name, number in pair
            ]
        ours = ("status", *(name for name, _ in self.scores))
        ours += ("labels", "error_code", "error_detail")
        self.input_count = len(shape.header)
        self.header = (*shape.header, *free_names(ours, shape.header))
        self._input = shape.header
        self._source_at = shape.header.index(shape.url_column)
        self._id_at = None if shape.id_column is None else shape.header.index(shape.id_column)

    def cells(self, shown: Shown) -> list[Any]:
        """Give one row: text or None, but numbers for scores and a list for `labels`."""
        spec, rejection = shown.stored.spec, shown.stored.result.rejection
        columns, scores = spec.columns or {}, shown.scores or {}
        row: list[Any] = [columns.get(name) for name in self._input]
        row[self._source_at] = spec.filename if spec.url is None else spec.url
        if self._id_at is not None:
            row[self._id_at] = spec.id
        row.append("failed" if rejection else "succeeded")
        if self._ranks:
            best = [part for pair in scores.items() for part in pair]
            row += best + [None] * (2 * self._ranks - len(best))
        else:
            row += [scores.get(label) for label in self._labels]
        row.append(shown.labels)
        row += [rejection.code.value, rejection.detail] if rejection else [None, None]
        return row


def free_names(names: Iterable[str], taken: Collection[str]) -> list[str]:
    """Give each name, with as many `_` at its end as make it differ from all others."""
    used, free = set(taken), []
    for name in names:
        while name in used:
            name += "_"
        used.add(name)
        free.append(name)
    return free
