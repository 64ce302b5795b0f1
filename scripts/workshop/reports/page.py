"""Builds the reports: each is one file of HTML that loads nothing else, and one of JSON."""

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from piqueue.commands.terminal import written_whole
from scripts.workshop.preview import jpeg_preview
from scripts.workshop.reports.metrics import Metrics
from scripts.workshop.reports.scoring import Scored

THUMBNAIL_PIXELS = 220


def write_report(output: Path, metrics: Metrics, html: str) -> None:
    """Write a report to `output`, and its metrics to a file of the same name with .json."""
    json_path = output.with_suffix(".json")
    for path, text in ((json_path, json.dumps(metrics, indent=1)), (output, html)):
        with written_whole(path) as file:
            file.write(text.encode())
    print(f"{output} and {json_path.name}")


def document(title: str, subtitle: str, parts: Iterable[str]) -> str:
    """A document; `title` and `subtitle` are text, `parts` are HTML."""
    style = files("scripts.workshop.reports").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f'<header><h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p></header>'
        f"{''.join(parts)}</main></body></html>\n"
    )


def section(title: str, about: str, *parts: str) -> str:
    """A section with a heading and an explanation."""
    return (
        f'<section><h2>{escape(title)}</h2><p class="about">{escape(about)}</p>'
        f"{''.join(parts)}</section>"
    )


def tiles(metrics: Sequence[tuple[str, str, str]]) -> str:
    """The most important metrics, from (name, value, remark)."""
    cells = "".join(
        f'<div class="tile"><p class="name">{escape(name)}</p><p class="value">{escape(value)}</p>'
        f'<p class="remark">{escape(remark)}</p></div>'
        for name, value, remark in metrics
    )
    return f'<div class="tiles">{cells}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of metrics; the first cell of a row is its name."""
    cells = ((name, "".join(f"<td>{escape(cell)}</td>" for cell in row)) for name, *row in rows)
    return _table("", header, cells)


def heat_table(header: Sequence[str], rows: Mapping[str, Sequence[int]]) -> str:
    """A table of counts, in which larger counts have darker cells."""
    most = max((count for counts in rows.values() for count in counts), default=0) or 1
    cell = '<td class="heat" style="--heat:{}%">{}</td>'
    cells = (
        (name, "".join(cell.format(round(100 * count / most), count) for count in counts))
        for name, counts in rows.items()
    )
    return _table(' class="heats"', header, cells)


def _table(attributes: str, header: Sequence[str], rows: Iterable[tuple[str, str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>' for name, cells in rows)
    return (
        f'<div class="scroll"><table{attributes}><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(title: str, drawing: str, remark: str = "") -> str:
    """A chart with a title."""
    return (
        f"<figure><figcaption><b>{escape(title)}</b> <span>{escape(remark)}</span></figcaption>"
        f"{drawing}</figure>"
    )


def not_scored(rejected: Mapping[str, str]) -> list[str]:
    """The section about up to 100 pictures without scores, with reasons; empty without any."""
    if not rejected:
        return []
    about = f"{len(rejected)} pictures have no scores and are not part of the metrics above."
    return [
        section("Not scored", about, table(["picture", "reason"], list(rejected.items())[:100]))
    ]


def gallery(cards: Iterable[str]) -> str:
    """Charts or cards side by side."""
    return f'<div class="gallery">{"".join(cards)}</div>'


def picture_card(scored: Scored, row: int, facts: Sequence[str]) -> str:
    """The picture with the index `row` and facts about it."""
    name = escape(scored.pictures.names[row])
    source = thumbnail(scored.pictures.paths[row])
    lines = "".join(f"<p>{escape(fact)}</p>" for fact in facts)
    return (
        f'<div class="card"><img alt="{name}" src="{source}">'
        f'<p class="file" title="{name}">{name}</p>{lines}</div>'
    )


def thumbnail(path: Path) -> str:
    """A small version of a picture as a data URL."""
    # The model has accepted the picture, so its size needs no limit.
    preview = jpeg_preview(path.read_bytes(), THUMBNAIL_PIXELS, max_pixels=sys.maxsize)
    return "data:image/jpeg;base64," + base64.b64encode(preview).decode()


def between(ends: Sequence[float] | None) -> str:
    """The ends of a confidence interval as text."""
    return "interval undefined" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def formatted(value: float | None) -> str:
    """A metric as text; a dash if it is undefined."""
    return "–" if value is None else f"{value:.3f}"
