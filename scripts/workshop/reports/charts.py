"""Draws line charts and reliability charts as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

Point = tuple[float, float]

WIDTH, HEIGHT = 300, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 40


@dataclass(frozen=True)
class Line:
    """A line of a chart; `style` is its class in the style sheet of the page."""

    name: str
    points: Sequence[Point]
    style: str


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high` in `steps` equal steps."""

    name: str
    low: float = 0.0
    high: float = 1.0
    steps: int = 5

    def place(self, value: float) -> float:
        """The position of `value`: 0 at the low end, 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        """The values at the steps."""
        size = (self.high - self.low) / self.steps
        return [self.low + size * number for number in range(self.steps + 1)]


def line_chart(
    about: str, lines: Sequence[Line], across: Axis, up: Axis, marker: float | None = None
) -> Markup:
    """A chart of lines; `marker` is a value of the x axis to mark."""
    drawn = [_axes(across, up)]
    if marker is not None:
        x = _x(across, marker)
        drawn.append(
            f'<line class="marker" x1="{x}" x2="{x}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        )
    for line in lines:
        if len(line.points) == 1:  # a line of one point is invisible
            [(x, y)] = line.points
            drawn.append(
                f'<circle class="point {line.style}" cx="{_x(across, x)}" cy="{_y(up, y)}" r="3.5">'
                f"<title>{escape(line.name)}: {y:.3g}</title></circle>"
            )
            continue
        points = " ".join(f"{_x(across, x)},{_y(up, y)}" for x, y in line.points)
        drawn.append(
            f'<polyline class="line {line.style}" points="{points}">'
            f"<title>{escape(line.name)}</title></polyline>"
        )
    return _svg(about, drawn)


def reliability_chart(about: str, bins: Sequence[dict[str, Any]]) -> Markup:
    """The share of pictures with the label over their score, with the diagonal of perfect
    calibration, and the number of scores of each point as a bar.
    """
    across, up = Axis("score"), Axis("share with the label")
    most = max(one["count"] for one in bins)
    drawn = [_axes(across, up)]
    for one in bins:
        left, right = _x(across, one["from"]), _x(across, one["from"] + 0.1)
        top = _y(up, 0.25 * one["count"] / most)
        drawn.append(
            f'<rect class="count" x="{left + 1}" width="{right - left - 2:.1f}" y="{top}" '
            f'height="{_y(up, 0) - top:.1f}"><title>{one["count"]} scores</title></rect>'
        )
    drawn.append(
        f'<line class="ideal" x1="{_x(across, 0)}" y1="{_y(up, 0)}" '
        f'x2="{_x(across, 1)}" y2="{_y(up, 1)}"/>'
    )
    for one in bins:
        title = f"score {one['mean_score']:.2f}: {one['share']:.0%} of {one['count']}"
        radius = 2.5 + 4.5 * (one["count"] / most) ** 0.5
        drawn.append(
            f'<circle class="dot" cx="{_x(across, one["mean_score"])}" '
            f'cy="{_y(up, one["share"])}" r="{radius:.1f}"><title>{title}</title></circle>'
        )
    return _svg(about, drawn)


def legend(lines: Sequence[tuple[str, str]]) -> Markup:
    """The names of lines beside their colours, from (name, style)."""
    entries = "".join(
        f'<span class="entry"><svg width="22" height="8" aria-hidden="true">'
        f'<line class="line {style}" x1="0" x2="22" y1="4" y2="4"/></svg>{escape(name)}</span>'
        for name, style in lines
    )
    return Markup(f'<p class="legend">{entries}</p>')  # noqa: S704


def _axes(across: Axis, up: Axis) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    drawn = []
    for tick in up.ticks:
        y = _y(up, tick)
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        drawn.append(_text(f'x="{_LEFT - 6}" y="{y + 3.5:.1f}"', f"{tick:.3g}", "tick", "end"))
    for tick in across.ticks:
        drawn.append(_text(f'x="{_x(across, tick)}" y="{bottom + 14}"', f"{tick:.3g}", "tick"))
    drawn.append(_text(f'x="{(_LEFT + right) / 2}" y="{HEIGHT - 8}"', across.name, "axis"))
    turned = f'transform="translate(12 {(_TOP + bottom) / 2}) rotate(-90)"'
    return "".join([*drawn, _text(turned, up.name, "axis")])


def _text(position: str, text: str, style: str, anchor: str = "middle") -> str:
    return f'<text class="{style}" {position} text-anchor="{anchor}">{escape(text)}</text>'


def _svg(about: str, drawn: Sequence[str]) -> Markup:
    return Markup(  # noqa: S704
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(about)}">{"".join(drawn)}</svg>'
    )


def _x(axis: Axis, value: float) -> float:
    return round(_LEFT + axis.place(value) * (WIDTH - _LEFT - _RIGHT), 1)


def _y(axis: Axis, value: float) -> float:
    return round(_TOP + (1 - axis.place(value)) * (HEIGHT - _TOP - _BOTTOM), 1)
