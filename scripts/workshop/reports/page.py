"""Writes the reports of models: each is one file of HTML that loads nothing, and one of JSON."""

import base64
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api.reports.page import environment, render, stamp
from piqueue.commands.terminal import written_whole
from scripts.workshop.preview import jpeg_preview
from scripts.workshop.reports.metrics import Metrics
from scripts.workshop.reports.scoring import Scored

# A click enlarges a picture.
THUMBNAIL_PIXELS = 480
_TEMPLATES = Path(__file__).parent / "templates"


def write_report(output: Path, metrics: Metrics, template: str, **values: Any) -> None:
    """Write a report to `output`, and its metrics to a file of the same name with .json.

    `values` are those that the template needs besides the metrics.
    """
    templates = environment(_TEMPLATES)
    templates.filters |= {"metric": formatted, "between": between}
    templates.globals["change"] = change
    footer = f"made {stamp(datetime.now(UTC))}"
    html = render(templates, template, metrics=metrics, footer=footer, **values)
    json_path = output.with_suffix(".json")
    for path, text in ((json_path, json.dumps(metrics, indent=1)), (output, html)):
        with written_whole(path) as file:
            file.write(text.encode())
    print(f"{output} and {json_path.name}")


def card(scored: Scored, row: int, facts: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    """The picture with the index `row`: its name, a data URL of it, and facts about it."""
    return scored.pictures.names[row], _thumbnail(scored.pictures.paths[row]), facts


def _thumbnail(path: Path) -> str:
    # The model has accepted the picture, so its size needs no limit.
    preview = jpeg_preview(path.read_bytes(), THUMBNAIL_PIXELS, max_pixels=sys.maxsize)
    return "data:image/jpeg;base64," + base64.b64encode(preview).decode()


def between(ends: Sequence[float] | None) -> str:
    """The ends of a confidence interval as text."""
    return "interval undefined" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def formatted(value: float | None) -> str:
    """A metric as text; a dash if it is undefined."""
    return "–" if value is None else f"{value:.3f}"


def change(before: float | None, after: float | None) -> str:
    """The change of a metric as text; a dash if it is undefined."""
    return "–" if before is None or after is None else f"{after - before:+.3f}"
