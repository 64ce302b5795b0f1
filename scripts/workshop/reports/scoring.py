"""Finds pictures with their labels, and scores them with a model as a worker does."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, get_args

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import ArtifactInvalid, Card
from model.predictor import EngineChoice, Predictor, load_predictor
from model.training.data.table import guessed_labels, is_left_out, label_cell
from piqueue.commands import pictures as picture_files
from piqueue.commands.progress import Progress, tell
from piqueue.commands.terminal import CommandFailed
from scripts.workshop.label_table import LABEL, NAME, SPLIT, check_cells
from scripts.workshop.table_file import read_rows
from worker.jobs.models.configured import open_catalog
from worker.jobs.settings import Settings
from worker.scoring.classify import Limits, LoadedPayload, classify

TABLE_NAME = "labels.csv"
MODEL_HELP = "NAME, NAME@VERSION, or the folder of an artifact"


@dataclass(frozen=True)
class Pictures:
    """Picture files; `truth` (n, n_labels) says which have which label, None without labels.

    `table` has the labels in columns of 0 and 1, of pictures in `folder`; None if they come from
    elsewhere.
    """

    source: str
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[str, ...] = ()
    truth: NDArray[np.bool_] | None = None
    table: Path | None = None
    folder: Path | None = None

    def select(self, rows: Sequence[int]) -> Self:
        """The pictures with the indexes `rows`."""
        return replace(
            self,
            names=tuple(self.names[row] for row in rows),
            paths=tuple(self.paths[row] for row in rows),
            truth=None if self.truth is None else self.truth[list(rows)],
        )


@dataclass(frozen=True)
class Scored:
    """Pictures with their scores (n, n_labels) by a model, as it serves them.

    `rows` are their indexes among the pictures that were given. `rejected` are the names of the
    others, with reasons.
    """

    card: Card
    labels: tuple[str, ...]
    scores: NDArray[np.float64]
    pictures: Pictures
    rows: tuple[int, ...]
    rejected: dict[str, str]

    @property
    def thresholds(self) -> list[float]:
        """The threshold of each label."""
        return [self.card.thresholds[self.card.labels.index(label)] for label in self.labels]

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Which labels are predicted, (n, n_labels)."""
        return self.scores >= np.asarray(self.thresholds)

    @property
    def model(self) -> dict[str, str]:
        """Name, version and hash of the model."""
        return {name: getattr(self.card, name) for name in ("name", "version", "sha256")}

    def __str__(self) -> str:
        return f"{self.card.name}@{self.card.version}"

    def select(self, rows: Sequence[int]) -> Self:
        """The pictures with the indexes `rows`, and their scores."""
        return replace(
            self,
            scores=self.scores[list(rows)],
            pictures=self.pictures.select(rows),
            rows=tuple(self.rows[row] for row in rows),
        )


def ranked(selected: NDArray[np.bool_], by: NDArray[np.float64]) -> list[tuple[int, int]]:
    """The selected cells as (row, column), those with the largest values in `by` first."""
    order = np.argsort(-by[selected], kind="stable")
    return [(int(row), int(column)) for row, column in np.argwhere(selected)[order]]


def add_picture_options(parser: argparse.ArgumentParser, output: str) -> None:
    """Add the options of both reports: the pictures, how to score them, the file to write."""
    about = "table with the column name and, for each label, a column of 0 and 1; or a folder"
    parser.add_argument("pictures", type=Path, help=about)
    about = "folder of the table's pictures (default: beside the table, or images/ there)"
    parser.add_argument("--images", type=Path, metavar="FOLDER", help=about)
    parser.add_argument("--split", help="only rows with this value in the column split: val")
    about = "also use labels that nobody has confirmed"
    parser.add_argument("--use-guessed", action="store_true", help=about)
    engines, about = get_args(EngineChoice), "engine to use (default: %(default)s)"
    parser.add_argument("--engine", choices=engines, default="auto", help=about)
    about = "report to write (default: %(default)s)"
    parser.add_argument(
        "-o", "--output", type=_html_path, metavar="FILE", default=output, help=about
    )


def _html_path(text: str) -> Path:
    """A file that ends in .html, so that a mistake replaces no table or picture."""
    path = Path(text)
    if path.suffix.lower() not in (".html", ".htm"):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .html")
    return path


def find_model(reference: str, settings: Settings, engine: EngineChoice) -> tuple[Predictor, Path]:
    """Load a model, `name` or `name@version` of the catalog or the folder of an artifact.

    Returns the predictor and the folder.

    Raises:
        ModelNotFound: there is no such model; the message lists all models.
        CommandFailed: the artifact is invalid.
    """
    folder = Path(reference)
    if not folder.is_dir():
        catalog = open_catalog(settings)
        folder = catalog.fetch(catalog.resolve(reference).ref)
    try:
        return load_predictor(folder, engine, batch_size=settings.batch_size), folder
    except ArtifactInvalid as error:
        raise CommandFailed(str(error)) from None


def find_pictures(options: argparse.Namespace, labels: Sequence[str]) -> Pictures:
    """The pictures of a table or folder that the options select, with those of `labels` it has.

    A folder has a labels.csv, or a subfolder of pictures for each label, or pictures without
    labels. The pictures of a table are in `--images`, or else beside it or in the folder `images`
    there. `--split` selects rows by their column `split`. Rows with a guess among `labels` are
    left out unless `--use-guessed` is given.

    Raises:
        CommandFailed: there are no pictures, or a row is invalid.
    """
    source: Path = options.pictures
    if source.is_file():
        return _from_table(source, source.name, labels, options)
    if not source.is_dir():
        raise CommandFailed(f"{source} does not exist: give a table or a folder")
    if (source / TABLE_NAME).is_file():
        return _from_table(source / TABLE_NAME, source.name, labels, options)
    if options.split:
        raise CommandFailed(f"{source} is a folder: give a table for --split")
    paths = tuple(picture_files.find_pictures(source))
    if not paths:
        raise CommandFailed(f"{source}: there are no pictures: give another folder")
    names = tuple(path.relative_to(source).as_posix() for path in paths)
    known = tuple(label for label in labels if (source / label).is_dir())
    truth = np.array([[name.startswith(f"{label}/") for label in known] for name in names])
    return Pictures(source.name, names, paths, known, truth if known else None)


def _from_table(
    table: Path, source: str, labels: Sequence[str], options: argparse.Namespace
) -> Pictures:
    split, images = options.split, options.images
    columns, rows = read_rows(table, (NAME, SPLIT) if split else (NAME,))
    named = table if set(labels) & set(columns) else None
    if LABEL in columns and not set(labels) & set(columns):
        columns += labels
        rows = [
            row | {label: str(int(row[LABEL].strip() == label.strip())) for label in labels}
            for row in rows
        ]
    known = tuple(label for label in labels if label in columns)
    rows = [row | {label: label_cell(row[label]) for label in known} for row in rows]
    rows = [row for row in rows if not is_left_out(row) and (not split or row[SPLIT] == split)]
    if not rows:
        which = f" of the split {split}" if split else ""
        raise CommandFailed(f"{table}: there are no rows{which}: add some")
    source += f", split {split}" if split else ""
    if not split and {row.get(SPLIT) for row in rows} >= {"train", "val"}:
        tell(
            f"{table}: pictures of the split train are among these: a model that was trained on "
            "them scores them better than others; --split val leaves them out"
        )
    answered = [row for row in rows if not guessed_labels(row, known)]
    if guess_count := len(rows) - len(answered):
        if options.use_guessed:
            source += f", {guess_count} rows with guessed labels"
        else:
            rows = answered
            what = (
                f"{table}: {guess_count} rows with guessed labels are not used: confirm the labels "
                "with piqueue label, or give --use-guessed"
            )
            if not rows:
                raise CommandFailed(what)
            tell(what)
    for row in rows:
        check_cells(f"{table}, {row[NAME]}", row, known)
    for folder in [images] if images else [table.parent, table.parent / "images"]:
        if images or (folder / rows[0][NAME]).is_file():
            break
    else:
        raise CommandFailed(f"{table}: {rows[0][NAME]} is not beside it; give --images FOLDER")
    names = tuple(row[NAME] for row in rows)
    truth = np.array([[row[label] == "1" for label in known] for row in rows], np.bool_)
    paths = tuple(folder / name for name in names)
    return Pictures(source, names, paths, known, truth if known else None, named, folder)


def score(
    predictor: Predictor, pictures: Pictures, labels: Sequence[str], settings: Settings
) -> Scored:
    """Score the pictures with some of the model's labels.

    Raises:
        CommandFailed: no picture has scores.
    """
    rejected = {}
    with Progress("scored", len(pictures.names)) as progress:

        def payloads() -> Iterator[LoadedPayload]:
            for index, path in enumerate(pictures.paths):
                progress.show(index)
                try:
                    payload = path.read_bytes()
                except OSError as error:
                    rejected[pictures.names[index]] = str(error)
                    payload = b""
                yield LoadedPayload(index, payload)

        limits = Limits(settings.batch_size, settings.max_pixels)
        results = classify(payloads(), len(pictures.names), predictor, limits)
        progress.show(len(results))
    rows, scores = [], []
    for index, (name, result) in enumerate(zip(pictures.names, results, strict=True)):
        if result.scores is None:
            rejected.setdefault(name, result.rejection.detail if result.rejection else "no scores")
        else:
            rows.append(index)
            scores.append(result.scores)
    if not rows:
        [(name, why), *_] = rejected.items()
        raise CommandFailed(f"no picture can be scored ({name}: {why}): give other pictures")
    card = predictor.card
    columns = [card.labels.index(label) for label in labels]
    selected = np.array(scores, np.float64)[:, columns]
    return Scored(card, tuple(labels), selected, pictures.select(rows), tuple(rows), rejected)
