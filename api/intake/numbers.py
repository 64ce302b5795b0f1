"""Finds the submitted columns that hold only numbers, as items arrive."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.jobs.record import NumberKind

# An identifier such as 007, 1e5, +1 or one of 20 digits is none of these: it would not come back
# as it was written. A double holds every number of 15 digits.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")
_DIGITS = 15


@dataclass
class NumberColumns:
    """The kind of each column that has had nothing but numbers and empty cells so far."""

    _kinds: dict[str, NumberKind] = field(default_factory=dict)
    _texts: set[str] = field(default_factory=set)

    def add(self, columns: Mapping[str, str]) -> None:
        """Add the cells of one item."""
        for name, cell in columns.items():
            if not cell or name in self._texts:
                continue
            kind = _kind(cell)
            if kind is None:
                self._texts.add(name)
                self._kinds.pop(name, None)
            elif self._kinds.setdefault(name, kind) != kind:
                self._kinds[name] = NumberKind.DECIMAL

    @property
    def found(self) -> dict[str, NumberKind]:
        """The columns of numbers; one that has only empty cells is text."""
        return dict(self._kinds)


def _kind(cell: str) -> NumberKind | None:
    if _INTEGER.fullmatch(cell):
        return NumberKind.INTEGER
    if _DECIMAL.fullmatch(cell) and len(cell.lstrip("-0.").replace(".", "")) <= _DIGITS:
        return NumberKind.DECIMAL
    return None
