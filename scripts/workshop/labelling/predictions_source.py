"""What a model says of each picture, and how sure it is: read from results, or scored here."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.results.downloads import LABEL_SEPARATOR
from piqueue.commands.terminal import CommandFailed
from scripts.workshop.reports.pictures import Pictures, find_model, score
from worker.jobs.settings import Settings

_THRESHOLD = 0.5  # where the model's own are not known
_RESULT_COLUMNS = 3  # after the scores: labels, error_code, error_detail


@dataclass(frozen=True)
class Opinion:
    """The scores of a picture by label, and the labels it would get.

    `margin` is the distance between a threshold and the score that is nearest to it, 0 to 1: the
    smaller, the less sure the model is of the picture.
    """

    scores: Mapping[str, float]
    labels: frozenset[str]
    margin: float


def opinion(
    scores: Mapping[str, float], labels: Sequence[str], thresholds: Mapping[str, float]
) -> Opinion:
    """The opinion that these scores, one at least, amount to."""
    distances = (abs(score - thresholds.get(label, _THRESHOLD)) for label, score in scores.items())
    return Opinion(dict(scores), frozenset(labels), min(distances))


def read_opinions(path: Path, names: Mapping[str, object]) -> dict[str, Opinion]:
    """The opinions on the pictures `names` in results as `piqueue results` writes them.

    A result is of the picture that its column `name`, its id or its file name says.

    Raises:
        CommandFailed: the file is no CSV or JSONL of results, or is of none of the pictures.
    """
    read = {".csv": _csv_results, ".jsonl": _json_results}.get(path.suffix.lower())
    if read is None:
        raise CommandFailed(f"{path}: scores are read from .csv or .jsonl")
    if not path.is_file():
        raise CommandFailed(f"{path}: there is no such file")
    found = {}
    try:
        for called, scores, labels in read(path):
            name = next((name for name in called if name in names), None)
            if name is not None and scores:
                found[name] = opinion(scores, labels, {})
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        raise CommandFailed(f"{path} cannot be read as results: {error!r}") from None
    if not found:
        raise CommandFailed(f"{path} has scores of none of the pictures")
    return found


_Result = tuple[list[str | None], dict[str, float], list[str]]


def _csv_results(path: Path) -> Iterator[_Result]:
    """The columns of the input come first, and where ours share a name with them ours end in _."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = csv.reader(file, strict=True)
    end = len(header) - _RESULT_COLUMNS
    if end < 0 or header[end].rstrip("_") != "labels":
        raise ValueError("its last columns are not labels, error_code and error_detail")
    start = max(at for at in range(end) if header[at].rstrip("_") == "status") + 1
    labels = [_without_tail(header[at], header[:start]) for at in range(start, end)]
    for row in rows:
        given = dict(zip(header[: start - 1], row, strict=False))
        called = [given.get(column) for column in ("name", "id", "filename", "source")]
        scores = zip(labels, row[start:end], strict=True)
        yield (
            called,
            {label: float(score) for label, score in scores if score},
            [label for label in row[end].split(LABEL_SEPARATOR) if label],
        )


def _without_tail(column: str, taken: Sequence[str]) -> str:
    while column.endswith("_") and column[:-1] in taken:
        column = column[:-1]
    return column


def _json_results(path: Path) -> Iterator[_Result]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            result: dict[str, Any] = json.loads(line)
            called = [(result.get("columns") or {}).get("name"), result["id"]]
            yield called, result.get("scores") or {}, result.get("labels") or []


def score_pictures(
    pictures: Mapping[str, Path], model: str, settings: Settings
) -> dict[str, Opinion]:
    """Score the files with a model, `name` or `name@version`; those it cannot read have no opinion.

    Raises:
        ModelNotFound: names the models there are.
        CommandFailed: the model's files are not right, or it can read none of the pictures.
    """
    predictor, _ = find_model(model, settings, settings.engine.value)
    names, card = tuple(pictures), predictor.card
    scored = score(predictor, Pictures(names, tuple(pictures.values())), settings)
    thresholds = dict(zip(card.labels, card.thresholds, strict=True))
    found = {}
    for index, row in zip(scored.kept, scored.scores, strict=True):
        scores = dict(zip(card.labels, map(float, row), strict=True))
        labels = [label for label, one in scores.items() if one >= thresholds[label]]
        found[names[index]] = opinion(scores, labels, thresholds)
    return found
