"""Predictions for the labelling page: read from a file of results, or made with a model."""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from api.results.downloads import LABEL_SEPARATOR
from piqueue.commands.terminal import CommandFailed
from scripts.workshop.reports.scoring import Pictures, find_model, score
from worker.jobs.settings import Settings

_THRESHOLD = 0.5  # where that of the model is unknown
_TRAILING_COLUMNS = 3  # labels, error_code and error_detail come after the scores


@dataclass(frozen=True)
class Prediction:
    """The scores of a picture by label, and its predicted labels.

    `margin` is the smallest distance, 0 to 1, between a score and its threshold: the smaller it
    is, the less certain the prediction.
    """

    scores: Mapping[str, float]
    labels: frozenset[str]
    margin: float

    @classmethod
    def of(
        cls, scores: Mapping[str, float], labels: Iterable[str], thresholds: Mapping[str, float]
    ) -> Self:
        """The prediction with these scores, at least one, and their thresholds."""
        margins = (abs(one - thresholds.get(label, _THRESHOLD)) for label, one in scores.items())
        return cls(dict(scores), frozenset(labels), min(margins))


def read_predictions(path: Path, names: Collection[str]) -> dict[str, Prediction]:
    """The predictions for the pictures `names` in a file that `piqueue results` has written.

    The column `name`, the id or the file name of a result identifies its picture.

    Raises:
        CommandFailed: the file is not CSV or JSONL with results, or has none of the pictures.
    """
    read = {".csv": _csv_results, ".jsonl": _json_results}.get(path.suffix.lower())
    if read is None:
        raise CommandFailed(f"{path}: give scores as .csv or .jsonl")
    if not path.is_file():
        raise CommandFailed(f"{path} does not exist: correct the path")
    found = {}
    try:
        for candidates, scores, labels in read(path):
            name = next((name for name in candidates if name in names), None)
            if name is not None and scores:
                found[name] = Prediction.of(scores, labels, {})
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        raise CommandFailed(
            f"{path} cannot be read as results ({error!r}): write it with `piqueue results`"
        ) from None
    if not found:
        raise CommandFailed(
            f"{path} has no scores of these pictures: give the results of their job"
        )
    return found


def read_mistakes(path: Path, names: Collection[str]) -> dict[str, Prediction]:
    """The wrong predictions for the pictures `names` in a report, in its order.

    `path` is the JSON file that `piqueue evaluate` has written. A prediction has the scores of the
    labels that are wrong.

    Raises:
        CommandFailed: the file is no such report, or has no mistake with these pictures.
    """
    scores: dict[str, dict[str, float]] = {}
    predicted: dict[str, set[str]] = {}
    try:
        for wrong in json.loads(path.read_text(encoding="utf-8"))["wrong_predictions"]:
            name, label = wrong["name"], wrong["label"]
            scores.setdefault(name, {})[label] = float(wrong["score"])
            predicted.setdefault(name, set()).update(() if wrong["truth"] else (label,))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CommandFailed(
            f"{path} cannot be read as a report ({error!r}): give the .json file that "
            "`piqueue evaluate` wrote"
        ) from None
    found = {
        name: Prediction.of(given, predicted[name], {})
        for name, given in scores.items()
        if name in names
    }
    if not found:
        raise CommandFailed(
            f"{path} has no wrong prediction of these pictures: give the folder of its pictures"
            if scores
            else f"{path} has no wrong prediction: there is nothing to correct"
        )
    return found


_Result = tuple[list[str | None], dict[str, float], list[str]]


def _csv_results(path: Path) -> Iterator[_Result]:
    """Columns of the input come first; a result column of the same name ends with an underscore."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = csv.reader(file, strict=True)
    end = len(header) - _TRAILING_COLUMNS
    if end < 0 or header[end].rstrip("_") != "labels":
        raise ValueError("the last columns must be labels, error_code and error_detail")
    start = max(at for at in range(end) if header[at].rstrip("_") == "status") + 1
    labels = [_label_of(column, header[:start]) for column in header[start:end]]
    for row in rows:
        given = dict(zip(header[: start - 1], row, strict=False))
        candidates = [given.get(column) for column in ("name", "id", "filename", "source")]
        scores = zip(labels, row[start:end], strict=True)
        yield (
            candidates,
            {label: float(score) for label, score in scores if score},
            [label for label in row[end].split(LABEL_SEPARATOR) if label],
        )


def _label_of(column: str, taken: Collection[str]) -> str:
    while column.endswith("_") and column[:-1] in taken:
        column = column[:-1]
    return column


def _json_results(path: Path) -> Iterator[_Result]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            result: dict[str, Any] = json.loads(line)
            candidates = [(result.get("columns") or {}).get("name"), result["id"]]
            yield candidates, result.get("scores") or {}, result.get("labels") or []


def predict(pictures: Mapping[str, Path], model: str, settings: Settings) -> dict[str, Prediction]:
    """Predictions of a model, `name` or `name@version`, for the pictures that can be decoded.

    Raises:
        ModelNotFound: there is no such model; the message lists all models.
        CommandFailed: the artifact is invalid, or no picture can be decoded.
    """
    predictor, _ = find_model(model, settings, settings.engine.value)
    given = Pictures(model, tuple(pictures), tuple(pictures.values()))
    scored = score(predictor, given, predictor.card.labels, settings)
    thresholds = dict(zip(scored.labels, scored.thresholds, strict=True))
    found = {}
    for name, row in zip(scored.pictures.names, scored.scores, strict=True):
        scores = dict(zip(scored.labels, map(float, row), strict=True))
        labels = [label for label, one in scores.items() if one >= thresholds[label]]
        found[name] = Prediction.of(scores, labels, thresholds)
    return found
