"""Figures: measured values with their spread, each compared with a bound."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, Self

from scripts.text_table import markdown

_SIGNS = {"<=": "at most", ">=": "at least"}


@dataclass(frozen=True)
class Figure:
    """One value, the lowest and highest measured ones, and the bound of the value.

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
        measured: Sequence[float],
        bound: tuple[Literal["<=", ">="], float],
        note: str = "",
    ) -> Self:
        """Give the median of the measured values."""
        return cls(name, unit, median(measured), min(measured), max(measured), *bound, note)

    @property
    def kept(self) -> bool:
        """Whether the value is within its bound."""
        return self.value <= self.bound if self.sign == "<=" else self.value >= self.bound


def table(figures: Sequence[Figure]) -> str:
    """Format figures as a Markdown table."""
    rows = [
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
    return markdown([("figure", "measured", "spread", "bound", "", "on"), *rows])


def alternate(
    first: Callable[[], float], second: Callable[[], float], rounds: int
) -> list[tuple[float, float]]:
    """Measure both alternately, `rounds` times, so that other load on the machine affects both."""
    return [(first(), second()) for _ in range(rounds)]


def ratios(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Give first / second of each pair."""
    return [first / second for first, second in pairs]


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value that a share of all values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
