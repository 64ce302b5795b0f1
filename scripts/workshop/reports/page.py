"""The parts both reports are made of; a report is one file of HTML that loads nothing."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from PIL import Image

from model.images.decode import decode

THUMBNAIL_PIXELS = 220


def page(title: str, subtitle: str, parts: Iterable[str]) -> str:
    """A whole document; `title` and `subtitle` are text, `parts` HTML."""
    style = files("scripts.workshop.reports").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f'<header><h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p></header>'
        f"{''.join(parts)}</main></body></html>\n"
    )


def section(title: str, about: str, *parts: str) -> str:
    """A part of the report under a heading, with a sentence on how to read it."""
    return (
        f'<section><h2>{escape(title)}</h2><p class="about">{escape(about)}</p>'
        f"{''.join(parts)}</section>"
    )


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """The figures that matter most, from (name, value, remark)."""
    made = "".join(
        f'<div class="tile"><p class="name">{escape(name)}</p><p class="value">{escape(value)}</p>'
        f'<p class="remark">{escape(remark)}</p></div>'
        for name, value, remark in figures
    )
    return f'<div class="tiles">{made}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column names the row, the others are figures."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def heat_table(corner: str, columns: Sequence[str], rows: dict[str, Sequence[int]]) -> str:
    """A table of counts, each cell the darker the more it counts."""
    most = max((count for counts in rows.values() for count in counts), default=0) or 1
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td class="heat" style="--heat:{round(100 * count / most)}%">{count}</td>'
            for count in counts
        )
        + "</tr>"
        for name, counts in rows.items()
    )
    return (
        f'<div class="scroll"><table class="heats"><thead><tr><th scope="col">{escape(corner)}</th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure(title: str, drawing: str, remark: str = "") -> str:
    """A chart under its title."""
    return (
        f"<figure><figcaption><b>{escape(title)}</b> <span>{escape(remark)}</span></figcaption>"
        f"{drawing}</figure>"
    )


def not_scored(refused: Mapping[str, str]) -> list[str]:
    """The section on pictures without scores, from their names and reasons; none if all have."""
    if not refused:
        return []
    about = f"{len(refused)} pictures have no scores and count nowhere above."
    return [section("Not scored", about, table(["picture", "why"], list(refused.items())[:100]))]


def gallery(cards: Iterable[str]) -> str:
    """Figures or cards side by side."""
    return f'<div class="gallery">{"".join(cards)}</div>'


def picture_card(path: Path, size: tuple[int, int], name: str, facts: Sequence[str]) -> str:
    """A picture of `size`, (width, height) in pixels, with what is to be said of it."""
    told = "".join(f"<p>{escape(fact)}</p>" for fact in facts)
    return (
        f'<div class="card"><img alt="{escape(name)}" src="{thumbnail(path, size)}">'
        f'<p class="file" title="{escape(name)}">{escape(name)}</p>{told}</div>'
    )


def thumbnail(path: Path, size: tuple[int, int]) -> str:
    """The picture, small, as a data URL."""
    scale = min(1.0, THUMBNAIL_PIXELS / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    pixels = decode(path.read_bytes(), (height, width), max_pixels=size[0] * size[1]).pixels
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def shown(value: float | None) -> str:
    """A figure as text; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"
