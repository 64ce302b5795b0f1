"""Reads a data set, a CSV file of names and labels and a folder of pictures, and checks it."""

import csv
import hashlib
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from model.images.decode import decode
from model.images.result import ImageRejected
from model.training.config import DataConfig, TrainingError
from model.training.data.arrays import Rows, mapped, release
from model.training.data.table import (
    GUESSED,
    LEFT_OUT,
    TableUnreadable,
    cells_problem,
    guessed_labels,
    is_left_out,
    label_cell,
    read_table,
)

Pixels = NDArray[np.uint8]
Labels = NDArray[np.float32]

VAL_SHARE = 5
"""One picture in this many is used for validation, if the CSV file has no column for it."""

FEW = 10
"""A label with fewer pictures than this causes a warning."""

_SHOWN = 20
_TOLD_EVERY = 50

log = structlog.get_logger()


@dataclass
class DataProblems:
    """Errors, which prevent training, and warnings, which do not, about a CSV file.

    Each is a sentence that names a row, column or picture and says what to do.
    """

    csv_path: Path
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def raise_errors(self) -> None:
        """Raise TrainingError with the errors and warnings, if there are errors."""
        if self.errors:
            more = len(self.errors) - _SHOWN
            shown = [*self.errors[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
            count = "1 error" if len(self.errors) == 1 else f"{len(self.errors)} errors"
            warnings = [f"warning: {warning}" for warning in self.warnings]
            raise TrainingError("\n  ".join([f"{self.csv_path}: {count}", *shown, *warnings]))


@dataclass(frozen=True)
class Annotations:
    """The rows of a CSV file: names, labels (n, n_labels) of 0 and 1, whether each is used for
    validation, and row numbers, where the header is row 1.

    `groups` (n,) are equal for the pictures of a group. `has_split` says whether the file splits
    the rows, or we do.
    """

    names: tuple[str, ...]
    labels: Labels
    is_val: NDArray[np.bool_]
    rows: tuple[int, ...]
    groups: NDArray[np.intp]
    has_split: bool

    def title(self, index: int) -> str:
        """The row and the name of a picture, for messages."""
        return f"row {self.rows[index]} ({self.names[index]})"

    def of(self, indexes: Sequence[int] | NDArray[np.intp]) -> Self:
        """The annotations of some pictures, in this order."""
        return replace(
            self,
            names=tuple(self.names[index] for index in indexes),
            labels=self.labels[indexes],
            is_val=self.is_val[indexes],
            rows=tuple(self.rows[index] for index in indexes),
            groups=self.groups[indexes],
        )


def read_data(
    csv_path: Path, config: DataConfig, folds: int = 2, folder: Path | None = None
) -> tuple[Annotations, Pixels, list[str]]:
    """The rows and pictures of a data set that is trained in `folds`, and warnings about it.

    The pictures are in a mapped file in `folder`, by default that of temporary files.

    Raises TrainingError with everything that is wrong with it.
    """
    problems = DataProblems(csv_path)
    annotations = read_annotations(csv_path, config, problems)
    if not problems.errors:  # rows with errors are missing, and perhaps with them a label
        _check_labels(annotations, config, problems)
    if not problems.errors:
        _check_folds(annotations, config, folds, problems)
    images = load_images(annotations, config, problems, folder)
    if not problems.errors:
        same = _same_pictures(images)
        annotations = join_groups(annotations, same, config, folds, problems)
        _check_duplicates(annotations, same, problems)
    problems.raise_errors()
    return annotations, images, problems.warnings


def join_groups(
    annotations: Annotations,
    pairs: Sequence[tuple[int, int]],
    config: DataConfig,
    folds: int,
    problems: DataProblems,
) -> Annotations:
    """Join the groups of each pair of pictures; a split that we made is made again.

    Labels that cannot be learned any more are added to `problems`.
    """
    if not pairs:
        return annotations
    groups = annotations.groups.copy()
    for one, other in pairs:
        groups[groups == groups[one]] = groups[other]
    joined = replace(annotations, groups=groups)
    if not annotations.has_split:
        parts = stratified_folds(joined.names, joined.labels, VAL_SHARE, groups)
        joined = replace(joined, is_val=parts == 0)
    found = DataProblems(problems.csv_path)
    _check_labels(joined, config, found)
    if not found.errors:
        _check_folds(joined, config, folds, found)
    problems.errors += found.errors
    return joined


def read_annotations(csv_path: Path, config: DataConfig, problems: DataProblems) -> Annotations:
    """The correct rows of `csv_path`, ordered by name; what is wrong is added to `problems`.

    Raises TrainingError if the file cannot be read or lacks a column.
    """
    try:
        columns, numbered = read_table(csv_path)
    except TableUnreadable as error:
        raise TrainingError(str(error)) from error
    missing = {config.image_name_col, *config.label_columns} - set(columns)
    if missing:
        raise TrainingError(
            f"{csv_path} lacks the column(s) {', '.join(sorted(missing))}; it has "
            f"{', '.join(columns)}. Set image_name_col, and label_col or targets, in the data "
            "configuration to the names of its columns"
        )
    filled = [(number, row) for number, row in numbered if any(row.values())]
    if not filled:
        raise TrainingError(f"{csv_path} has a header and no rows: add a row for each picture")
    empty = {number for number, _ in numbered} - {number for number, _ in filled}
    problems.warnings += [f"row {number} is empty and is ignored" for number in sorted(empty)]
    columns = [column for column in columns if column not in (GUESSED, LEFT_OUT)]
    filled = [(number, _stripped(row, config)) for number, row in filled]
    filled = _answered(filled, config, problems)
    has_split = config.split_col in columns
    read: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, row in filled:
        name = row[config.image_name_col]
        if wrong := _row_problem(row, config, has_split):
            problems.errors.append(f"row {number}: {wrong}")
        elif name in read:
            problems.errors.append(
                f"row {number}: {name} is already in row {read[name][0]}: remove one of the rows"
            )
        else:
            read[name] = (number, row)
    problems.warnings += _column_warnings(columns, [row for _, row in filled], config)
    names = tuple(sorted(read))
    rows = [read[name][1] for name in names]
    if label_col := config.label_col:
        cells = [[row[label_col] == target for target in config.targets] for row in rows]
    else:
        cells = [[row[target] == "1" for target in config.targets] for row in rows]
    labels = np.array(cells, np.float32)
    labels = labels.reshape(len(names), len(config.targets))
    groups = group_numbers([row.get(config.group_col) or "" for row in rows])
    if has_split:
        is_val = np.array([row[config.split_col] == "val" for row in rows], np.bool_)
    else:
        is_val = stratified_folds(names, labels, VAL_SHARE, groups) == 0
    numbers = tuple(read[name][0] for name in names)
    annotations = Annotations(names, labels, is_val, numbers, groups, has_split)
    for index, group in enumerate(groups):
        if is_val[index] != is_val[group]:
            problems.errors.append(
                f"{annotations.title(index)} and {annotations.title(group)} have the same "
                f"{config.group_col}, but one is in train and one in val: put the pictures of a "
                "group into one split"
            )
    return annotations


def write_split(path: Path, annotations: Annotations, config: DataConfig) -> None:
    """Write a table with the columns `name`, `label` or all targets, and `split`."""
    columns = ("label",) if config.label_col else config.targets
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", *columns, "split"])
        for name, labels, is_val in zip(
            annotations.names, annotations.labels, annotations.is_val, strict=True
        ):
            cells = [config.targets[labels.argmax()]] if config.label_col else labels.astype(int)
            rows.writerow([name, *cells, "val" if is_val else "train"])


def _stripped(row: dict[str, Any], config: DataConfig) -> dict[str, Any]:
    """The row, with 0 and 1 however they are written, and without spaces around labels."""
    cells = {column: row[column] for column in config.label_columns if row[column] is not None}
    if config.label_col:
        known = config.targets  # may have such spaces
        return row | {at: cell if cell in known else cell.strip() for at, cell in cells.items()}
    return row | {column: label_cell(cell) for column, cell in cells.items()}


def _answered(
    numbered: list[tuple[int, dict[str, Any]]], config: DataConfig, problems: DataProblems
) -> list[tuple[int, dict[str, Any]]]:
    """The rows that a person has answered, or that `use_guessed` includes."""
    shown = [(number, row) for number, row in numbered if not is_left_out(row)]
    if left_out_count := len(numbered) - len(shown):
        problems.warnings.append(f"{left_out_count} rows are not used: their pictures are left out")
    guessed = {number for number, row in shown if guessed_labels(row, config.targets)}
    if config.use_guessed or not guessed:
        return shown
    what = (
        f"{len(guessed)} rows with guessed labels are not used: confirm the labels with piqueue "
        "label, or set use_guessed"
    )
    (problems.errors if len(guessed) == len(shown) else problems.warnings).append(what)
    return [(number, row) for number, row in shown if number not in guessed]


def _row_problem(row: dict[str, Any], config: DataConfig, has_split: bool) -> str | None:
    if problem := cells_problem(row):
        return problem
    if not row[config.image_name_col]:
        return f"column {config.image_name_col} is empty: write the file name of the picture"
    known = config.targets if config.label_col else ("0", "1")
    for column in config.label_columns:
        if row[column] not in known:
            return f"column {column} is {row[column]!r}: write {' or '.join(known)}"
    if has_split and row[config.split_col] not in ("train", "val"):
        return (
            f"column {config.split_col} is {row[config.split_col]!r}: write train or val, "
            "or remove the column to have the rows split automatically"
        )
    return None


def _column_warnings(
    columns: list[str], rows: list[dict[str, Any]], config: DataConfig
) -> list[str]:
    known = (config.image_name_col, config.split_col, config.group_col, *config.label_columns)
    unused = [column for column in columns if column not in known]
    binary = [
        column for column in unused if {label_cell(row[column] or "") for row in rows} <= {"0", "1"}
    ]
    others = [column for column in unused if column not in binary]
    warnings = [
        f"column {name} looks like a label but is not used: add it to targets?" for name in binary
    ]
    return [*warnings, f"unused columns: {', '.join(others)}"] if others else warnings


def _check_labels(annotations: Annotations, config: DataConfig, problems: DataProblems) -> None:
    """Find labels that cannot be learned or measured from these rows."""
    for split, rows in (("train", ~annotations.is_val), ("val", annotations.is_val)):
        part = annotations.labels[rows]
        for target, column in zip(config.targets, part.T, strict=True):
            count = int(column.sum())
            if count in (0, len(column)):
                problems.errors.append(
                    f"the {split} split has no picture {'without' if count else 'with'} {target}: "
                    "add some, move some from the other split, or remove the label"
                )
            elif split == "train" and count < FEW:
                problems.warnings.append(
                    f"only {count} pictures of the train split have {target}: add some"
                )


def _check_folds(
    annotations: Annotations, config: DataConfig, count: int, problems: DataProblems
) -> None:
    """Find labels for which a fit without one of the folds would see only one answer."""
    rows = np.flatnonzero(~annotations.is_val)
    labels = annotations.labels[rows]
    if len(rows) < count:
        problems.errors.append(
            f"the train split has {len(rows)} pictures for {count} folds: add some"
        )
        return
    names = [annotations.names[row] for row in rows]
    folds = stratified_folds(names, labels, count, annotations.groups[rows])
    for target, column in zip(config.targets, labels.T, strict=True):
        for answer, word in ((1, "with"), (0, "without")):
            if len(set(folds[column == answer])) == 1:
                problems.errors.append(
                    f"the pictures {word} {target} of the train split are all in one of {count} "
                    "folds, so the fit without it would see none: add some, of other groups, or "
                    "remove the label"
                )


def _same_pictures(images: Pixels) -> list[tuple[int, int]]:
    """Pairs of a picture and the first one with the same pixels."""
    first: dict[bytes, int] = {}
    pairs = [
        (index, first.setdefault(hashlib.sha256(image.tobytes()).digest(), index))
        for index, image in enumerate(Rows.all_of(images))
    ]
    return [pair for pair in pairs if pair[0] != pair[1]]


def _check_duplicates(
    annotations: Annotations, same: Sequence[tuple[int, int]], problems: DataProblems
) -> None:
    """Find pictures with the same pixels that contradict each other."""
    for index, earlier in same:
        pair = f"{annotations.title(index)} is the same picture as {annotations.title(earlier)}"
        if annotations.is_val[index] != annotations.is_val[earlier]:
            problems.errors.append(
                f"{pair}, but one is in train and one in val, which would falsify the measurement: "
                "remove one of the rows"
            )
        elif (annotations.labels[index] != annotations.labels[earlier]).any():
            problems.errors.append(f"{pair}, but their labels differ: remove the wrong row")
        else:
            problems.warnings.append(f"{pair} and counts twice")


def group_numbers(cells: Sequence[str]) -> NDArray[np.intp]:
    """The index of the first row of each row's group; a row with an empty cell is its own group."""
    first: dict[str, int] = {}
    numbers = [first.setdefault(cell, i) if cell else i for i, cell in enumerate(cells)]
    return np.array(numbers, np.intp)


def stratified_folds(
    names: Sequence[str], labels: Labels, count: int, groups: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """A fold 0..count-1 for each row, with every set of labels spread evenly over the folds.

    The rows of a group are in one fold. Does not depend on the order of the rows.
    """
    keys = [
        (row.tobytes(), hashlib.sha256(name.encode()).digest())
        for name, row in zip(names, labels, strict=True)
    ]
    members: dict[int, list[int]] = {}
    for index, group in enumerate(range(len(names)) if groups is None else groups.tolist()):
        members.setdefault(group, []).append(index)
    folds = np.empty(len(names), np.intp)
    ordered = sorted(members.values(), key=lambda group: min(keys[index] for index in group))
    for position, group in enumerate(ordered):
        folds[group] = position % count
    return folds


def load_images(
    annotations: Annotations,
    config: DataConfig,
    problems: DataProblems,
    folder: Path | None = None,
) -> Pixels:
    """The pictures as uint8 RGB (n, height, width, 3), decoded as for serving.

    They are in a mapped file in `folder`, by default that of temporary files. Missing and rejected
    pictures are added to `problems`; their pixels are undefined.
    """
    shape = (len(annotations.names), *config.input_shape)
    if not config.images_base_path.is_dir():
        problems.errors.append(
            f"there is no folder {config.images_base_path}: correct images_base_path, or give "
            "--images FOLDER"
        )
        return np.empty(shape, np.uint8)
    images: Pixels = mapped(folder or Path(tempfile.gettempdir()), shape, np.uint8)

    def load(index: int) -> str | None:
        path = config.images_base_path / annotations.names[index]
        try:
            images[index] = decode(path.read_bytes(), size=config.resize_shape).pixels
        except FileNotFoundError:
            return f"there is no picture {path}: correct images_base_path, or remove the row"
        except (OSError, ValueError, ImageRejected) as error:
            return f"{path} cannot be read ({error}): replace the picture, or remove the row"
        return None

    with ThreadPoolExecutor() as pool:
        loaded = zip(annotations.rows, pool.map(load, range(len(images))), strict=True)
        for number, (row, problem) in enumerate(loaded, 1):
            if problem:
                problems.errors.append(f"row {row}: {problem}")
            if number % _TOLD_EVERY == 0 or number == len(images):
                release(images)
                log.info("pictures decoded", number=number, of=len(images))
    return images
