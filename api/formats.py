"""The formats of results, and which of them a request asks for."""

import re
from enum import StrEnum
from importlib.util import find_spec

from worker.jobs.errors import NotAcceptable


class Format(StrEnum):
    """A page of JSON, or all results streamed."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


# A format is sent as its first type here, unless `Accept` names another.
MEDIA_TYPES = {
    "application/json": Format.JSON,
    "application/x-ndjson": Format.JSONL,
    "application/jsonl": Format.JSONL,
    "text/csv": Format.CSV,
    "application/vnd.apache.parquet": Format.PARQUET,
}
# Parquet needs pyarrow.
AVAILABLE = [form for form in Format if form is not Format.PARQUET or find_spec("pyarrow")]
_QUALITY = re.compile(r"\s*q\s*=\s*([01](\.[0-9]*)?)\s*")


def choose(named: Format | None, accept: str) -> tuple[Format, str]:
    """Return the format that a request names, or else prefers, and its media type.

    Raises:
        NotAcceptable: it accepts none of these formats.
    """
    if named is not None:
        return named, next(kind for kind, form in MEDIA_TYPES.items() if form is named)
    wanted = _qualities(accept or "*/*")
    quality = {kind: _quality(kind, wanted) for kind in MEDIA_TYPES}
    best = max(MEDIA_TYPES, key=lambda kind: quality[kind])
    if not quality[best]:
        raise NotAcceptable(f"Accept names no format of results: use {', '.join(MEDIA_TYPES)}")
    return MEDIA_TYPES[best], best


def _quality(media_type: str, wanted: dict[str, float]) -> float:
    family = media_type.partition("/")[0]
    ranges = (media_type, f"{family}/*", "*/*")
    return next((wanted[name] for name in ranges if name in wanted), 0)


def _qualities(accept: str) -> dict[str, float]:
    """Read an Accept header as the quality of each media range (RFC 9110, 12.5.1)."""
    found = {}
    for clause in accept.lower().split(","):
        name, *parameters = clause.split(";")
        quality = next((match for text in parameters if (match := _QUALITY.fullmatch(text))), None)
        found[name.strip()] = float(quality[1]) if quality else 1.0
    return found
