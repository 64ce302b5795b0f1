"""What a benchmark found: figures, each beside the bound it is held to, as a table and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal, Self

_SIGNS = {"<=": "at most", ">=": "at least"}


@dataclass(frozen=True)
class Figure:
    """One number with the lowest and highest it was seen at, and its bound.

    `note` says what it was measured on.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    sign: Literal["<=", ">="]
    bound: float
    note: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        unit: str,
        seen: Sequence[float],
        bound: tuple[Literal["<=", ">="], float],
        note: str = "",
    ) -> Self:
        """Give the median of what was seen."""
        return cls(name, unit, median(seen), min(seen), max(seen), *bound, note)

    @property
    def kept(self) -> bool:
        """Whether the bound is kept."""
        return self.value <= self.bound if self.sign == "<=" else self.value >= self.bound


def table(figures: Sequence[Figure]) -> str:
    """Lay the figures out for people, as a Markdown table."""
    rows: list[tuple[str, ...]] = [("figure", "measured", "spread", "bound", "", "on")]
    rows += [
        (
            figure.name,
            f"{figure.value:.4g} {figure.unit}".rstrip(),
            f"{figure.low:.4g} to {figure.high:.4g}",
            f"{_SIGNS[figure.sign]} {figure.bound:g}",
            "kept" if figure.kept else "MISSED",
            figure.note,
        )
        for figure in figures
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in rows
    )


def as_json(figures: Sequence[Figure], machine: dict[str, Any]) -> str:
    """Give the figures, and the machine they were measured on, for programs."""
    rows = [{**asdict(figure), "kept": figure.kept} for figure in figures]
    return json.dumps({"machine": machine, "figures": rows}, indent=2)
