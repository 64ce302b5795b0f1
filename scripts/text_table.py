"""Rows of text as tables with aligned columns."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Pad the cells so that each column has one width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Format rows, of which the first is the header, as a Markdown table."""
    header, *body = aligned(rows)
    lines = [header, ["-" * len(cell) for cell in header], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
