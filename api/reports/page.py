"""Makes reports from templates: each is one file of HTML that loads nothing."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
# The templates place it between <style> and </style> as it is.
_STYLE = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# Also in the document itself, for the time when it is opened as a file.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
HEAT_STEPS = 10


def environment(*folders: Path) -> Environment:
    """Make the environment of the templates in these folders, which may use the shared ones.

    Everything that a template inserts is escaped, unless it is `Markup`.
    """
    made = Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"style": Markup(_STYLE), "policy": POLICY, "heat": heat}  # noqa: S704
    made.filters |= {
        "number": number,
        "share": share,
        "duration": duration,
        "size": size,
        "stamp": stamp,
        "shortened": shortened,
    }
    return made


def render(templates: Environment, name: str, **values: Any) -> str:
    """Fill in a template."""
    return templates.get_template(name).render(**values)


def number(value: float) -> str:
    """A count or a rate with a comma for each thousand; rates have one decimal."""
    return f"{value:,}" if isinstance(value, int) or value < 100 else f"{value:,.0f}"


def share(part: int, whole: int) -> str:
    """A share in percent; one that is not quite nothing or all does not look so."""
    if not whole or part in (0, whole):
        return "100 %" if part and part == whole else "0 %"
    percent = min(max(100 * part / whole, 0.1), 99.9)
    return f"{percent:.1f} %"


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def size(byte_count: int) -> str:
    """A size in the largest unit that leaves a number of 1 or more."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if byte_count >= factor:
            return f"{byte_count / factor:.1f} {unit}"
    return f"{byte_count} bytes"


def stamp(time: datetime) -> str:
    """A time in UTC, to the minute."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def shortened(text: str, most_chars: int) -> str:
    """The beginning and the end of a text that is too long to be shown."""
    if len(text) <= most_chars:
        return text
    tail = most_chars // 3
    return f"{text[: most_chars - tail - 1]}…{text[-tail:]}"


def heat(count: int, counts: Sequence[Sequence[int]]) -> int:
    """The step, from 0 to HEAT_STEPS, by which the cell of a count is coloured in its table."""
    most = max((one for row in counts for one in row), default=0)
    return -(-HEAT_STEPS * count // most) if most else 0
