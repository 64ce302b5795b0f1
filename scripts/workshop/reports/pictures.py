"""The pictures a model is judged on: found, with their labels if they have any, and scored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import ArtifactInvalid
from model.predictor import EngineChoice, Predictor, load_predictor
from piqueue.commands.progress import Progress
from piqueue.commands.sources import is_picture
from piqueue.commands.terminal import CommandFailed
from scripts.workshop.label_table import NAME, SPLIT, read_rows
from worker.jobs.models.configured import open_catalog
from worker.jobs.settings import Settings
from worker.scoring.classify import Limits, LoadedPayload, classify

TABLE_NAME = "labels.csv"


@dataclass(frozen=True)
class Pictures:
    """Files to score; `truth` says for each label whether each of them has it, (n, n_labels)."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[str, ...] = ()
    truth: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Scored:
    """The scores (n, n_labels) that a model serves for pictures, those it refuses left out.

    `kept` are the indexes of those that have scores; `sizes` their (width, height) in pixels.
    """

    kept: NDArray[np.intp]
    scores: NDArray[np.float64]
    sizes: tuple[tuple[int, int], ...]
    refused: dict[str, str]


def find_model(reference: str, settings: Settings, engine: EngineChoice) -> tuple[Predictor, Path]:
    """Load a model, and say where it is: the folder of an artifact, or `name` or `name@version` of
    the catalog.

    Raises:
        ModelNotFound: names the models there are.
        CommandFailed: the model's files are not right.
    """
    folder = Path(reference)
    if not folder.is_dir():
        catalog = open_catalog(settings)
        folder = catalog.fetch(catalog.resolve(reference).ref)
    try:
        return load_predictor(folder, engine, batch_size=settings.batch_size), folder
    except ArtifactInvalid as error:
        raise CommandFailed(str(error)) from None


def find_pictures(
    source: Path, labels: Sequence[str], images: Path | None, split: str | None
) -> Pictures:
    """The pictures of a table of labels or of a folder.

    A folder has a labels.csv, or a folder of pictures for each label, or pictures without labels.
    The pictures of a table are in `images`, else beside it or in a folder `images` there. `split`
    chooses rows by their column `split`. Of `labels` those are judged that the pictures have.

    Raises:
        CommandFailed: there are none, or a row is not right.
    """
    if source.is_file():
        return _from_table(source, labels, images, split)
    if not source.is_dir():
        raise CommandFailed(f"{source}: there is no such table or folder")
    if (source / TABLE_NAME).is_file():
        return _from_table(source / TABLE_NAME, labels, images, split)
    if split:
        raise CommandFailed(f"{source}: only a table has splits")
    by_label = [label for label in labels if (source / label).is_dir()]
    paths = tuple(
        path for path in sorted(source.rglob("*")) if is_picture(path.relative_to(source))
    )
    if not paths:
        raise CommandFailed(f"{source}: there are no pictures")
    names = tuple(path.relative_to(source).as_posix() for path in paths)
    if not by_label:
        return Pictures(names, paths)
    truth = np.array([[name.startswith(f"{label}/") for label in by_label] for name in names])
    return Pictures(names, paths, tuple(by_label), truth)


def _from_table(
    table: Path, labels: Sequence[str], images: Path | None, split: str | None
) -> Pictures:
    columns, rows = read_rows(table, (NAME, SPLIT) if split else (NAME,))
    known = tuple(label for label in labels if label in columns)
    rows = [row for row in rows if not split or row[SPLIT] == split]
    if not rows:
        raise CommandFailed(f"{table}: there are no rows{f' of the split {split}' * bool(split)}")
    for row in rows:
        for label in known:
            if row[label] not in ("0", "1"):
                raise CommandFailed(
                    f"{table}: {label} of {row[NAME]} is {row[label]!r}; write 0 or 1"
                )
    folder = images or next(
        (
            folder
            for folder in (table.parent, table.parent / "images")
            if (folder / rows[0][NAME]).is_file()
        ),
        None,
    )
    if folder is None:
        raise CommandFailed(f"{table}: {rows[0][NAME]} is not beside it; give --images FOLDER")
    names = tuple(row[NAME] for row in rows)
    truth = np.array([[row[label] == "1" for label in known] for row in rows], np.bool_)
    paths = tuple(folder / name for name in names)
    return Pictures(names, paths, known, truth if known else None)


def score(predictor: Predictor, pictures: Pictures, settings: Settings) -> Scored:
    """Score the pictures as a worker does."""
    refused = {}
    with Progress("scored", len(pictures.names)) as progress:

        def arrivals() -> Iterator[LoadedPayload]:
            for position, path in enumerate(pictures.paths):
                progress.show(position)
                try:
                    payload = path.read_bytes()
                except OSError as error:
                    refused[pictures.names[position]] = str(error)
                    payload = b""
                yield LoadedPayload(position, payload)

        limits = Limits(settings.batch_size, settings.max_pixels)
        results = classify(arrivals(), len(pictures.names), predictor, limits)
        progress.show(len(results))
    kept, scores, sizes = [], [], []
    for index, (name, result) in enumerate(zip(pictures.names, results, strict=True)):
        if result.scores is None or result.image is None:
            refused.setdefault(name, result.rejection.detail if result.rejection else "no scores")
            continue
        kept.append(index)
        scores.append(result.scores)
        sizes.append((result.image.width or 1, result.image.height or 1))
    if not kept:
        raise CommandFailed(f"none of the pictures can be scored; {next(iter(refused.items()))}")
    return Scored(np.array(kept), np.array(scores, np.float64), tuple(sizes), refused)
