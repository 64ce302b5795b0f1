"""A CSV of names and labels and a folder of pictures, read into arrays."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.images.decode import decode
from model.images.result import ImageRejected
from model.training.config import DataConfig, TrainingError
from model.training.data.problems import DataProblems
from model.training.data.table import TableUnreadable, read_table

Pixels = NDArray[np.uint8]
Labels = NDArray[np.float32]

VAL_SHARE = 5
"""One picture in this many goes to the validation split where the CSV names none."""


FEW = 10
"""A label with fewer pictures than this is warned of."""


@dataclass(frozen=True)
class Annotations:
    """The rows of the CSV: names, labels (n, n_labels) of 0 and 1, which are `val`, and the number
    of each row, where the header is 1.
    """

    names: tuple[str, ...]
    labels: Labels
    is_val: NDArray[np.bool_]
    rows: tuple[int, ...]


def read_annotations(csv_path: Path, config: DataConfig, findings: DataProblems) -> Annotations:
    """The rows of `csv_path` that are right, in order of name; the others go into `findings`.

    Raises TrainingError if the file cannot be read or lacks a column.
    """
    read: dict[str, tuple[int, list[int], str]] = {}
    try:
        columns, rows = read_table(csv_path)
    except TableUnreadable as error:
        raise TrainingError(str(error)) from error
    _check_columns(csv_path, columns, config)
    if not any(any(row.values()) for _, row in rows):
        raise TrainingError(f"{csv_path} has a header and no rows")
    has_split = config.split_col in columns
    for number, row in rows:
        if not any(row.values()):
            findings.warnings.append(f"row {number} is empty and left out")
            continue
        name = row[config.image_name_col]
        if wrong := _row_problem(row, config, has_split):
            findings.errors.append(f"row {number}: {wrong}")
        elif name in read:
            findings.errors.append(
                f"row {number}: {name} is listed twice, first in row {read[name][0]}; "
                "leave one of the rows"
            )
        else:
            split = row[config.split_col] if has_split else ""
            read[name] = (number, [int(row[target]) for target in config.targets], split)
    findings.warnings += _unused_columns(
        [row for _, row in rows if any(row.values())], columns, config
    )
    names = tuple(sorted(read))
    labels = np.array([read[name][1] for name in names], np.float32)
    labels = labels.reshape(len(names), len(config.targets))
    if has_split:
        is_val = np.array([read[name][2] == "val" for name in names], np.bool_)
    else:
        is_val = stratified_folds(names, labels, VAL_SHARE) == 0
    return Annotations(names, labels, is_val, tuple(read[name][0] for name in names))


def _check_columns(csv_path: Path, columns: list[str], config: DataConfig) -> None:
    missing = [c for c in (config.image_name_col, *config.targets) if c not in columns]
    if missing:
        raise TrainingError(
            f"{csv_path} lacks the column(s) {', '.join(missing)}; it has {', '.join(columns)}. "
            "Name its columns in image_name_col and targets of the data config"
        )


def _row_problem(row: dict[str, Any], config: DataConfig, has_split: bool) -> str | None:
    if None in row:
        return "has more cells than the header; quote names that hold a comma"
    if None in row.values():
        return "has fewer cells than the header"
    if not row[config.image_name_col]:
        return f"no picture name in column {config.image_name_col}"
    for target in config.targets:
        if row[target] not in ("0", "1"):
            return f"{target} is {row[target]!r}; write 0 or 1"
    if has_split and row[config.split_col] not in ("train", "val"):
        return (
            f"{config.split_col} is {row[config.split_col]!r}; write train or val, "
            "or drop the column to have the rows split for you"
        )
    return None


def _unused_columns(
    rows: list[dict[str, Any]], columns: list[str], config: DataConfig
) -> Iterator[str]:
    known = (config.image_name_col, config.split_col, *config.targets)
    others = []
    for column in columns:
        if column in known:
            continue
        if rows and {row[column] for row in rows} <= {"0", "1"}:
            yield f"column {column} looks like a label and is not used: is it missing in targets?"
        else:
            others.append(column)
    if others:
        yield f"not used of the columns: {', '.join(others)}"


def check_labels(annotations: Annotations, config: DataConfig, findings: DataProblems) -> None:
    """Find labels that cannot be learned or measured from these rows."""
    for split, rows in (("train", ~annotations.is_val), ("val", annotations.is_val)):
        part = annotations.labels[rows]
        for target, column in zip(config.targets, part.T, strict=True):
            count = int(column.sum())
            if count == 0 or count == len(column):
                what = "with" if count == 0 else "without"
                findings.errors.append(
                    f"the {split} split has no picture {what} {target}: "
                    "add some, move some between the splits, or drop the label"
                )
            elif split == "train" and count < FEW:
                findings.warnings.append(
                    f"only {count} pictures of the train split have {target}: add some"
                )


def check_duplicates(annotations: Annotations, images: Pixels, findings: DataProblems) -> None:
    """Find pictures that are the same, pixel by pixel, under different names."""
    first: dict[bytes, int] = {}
    for index, image in enumerate(images):
        earlier = first.setdefault(hashlib.sha256(image).digest(), index)
        if earlier == index:
            continue
        said = " is the same picture as ".join(
            f"row {annotations.rows[i]} ({annotations.names[i]})" for i in (index, earlier)
        )
        if annotations.is_val[index] != annotations.is_val[earlier]:
            findings.errors.append(
                f"{said}, and one is in train, the other in val, "
                "where it would be measured on what was learned: leave one of the rows"
            )
        elif (annotations.labels[index] != annotations.labels[earlier]).any():
            findings.errors.append(f"{said}, but their labels differ: leave the right one")
        else:
            findings.warnings.append(f"{said}: it counts double")


def stratified_folds(names: Sequence[str], labels: Labels, count: int) -> NDArray[np.intp]:
    """A fold 0..count-1 for each row, every label set spread evenly over the folds.

    Depends on the set of rows only, never on their order.
    """
    keys = [
        (row.tobytes(), hashlib.sha256(name.encode()).digest())
        for name, row in zip(names, labels, strict=True)
    ]
    folds = np.empty(len(names), np.intp)
    for position, index in enumerate(sorted(range(len(names)), key=keys.__getitem__)):
        folds[index] = position % count
    return folds


def load_images(annotations: Annotations, config: DataConfig, findings: DataProblems) -> Pixels:
    """The pictures as uint8 RGB (n, height, width, 3), decoded as serving decodes them.

    Those that are missing or refused go into `findings`, and are of no meaning in the answer.
    """
    names = annotations.names
    images = np.empty((len(names), *config.input_shape), np.uint8)

    def load(index: int) -> str | None:
        path = config.images_base_path / names[index]
        try:
            images[index] = decode(path.read_bytes(), size=config.resize_shape).pixels
        except FileNotFoundError:
            return f"there is no picture {path}; see images_base_path, or drop the row"
        except (OSError, ImageRejected) as error:
            return f"{path} cannot be read ({error}); drop the row"
        return None

    with ThreadPoolExecutor() as pool:
        problems = pool.map(load, range(len(names)))
    for row, problem in zip(annotations.rows, problems, strict=True):
        if problem:
            findings.errors.append(f"row {row}: {problem}")
    return images


def read_data(csv_path: Path, config: DataConfig) -> tuple[Annotations, Pixels, list[str]]:
    """The rows and pictures of a data set, and what it is warned of.

    Raises TrainingError with everything that is wrong with it.
    """
    findings = DataProblems(csv_path)
    annotations = read_annotations(csv_path, config, findings)
    if not findings.errors:  # else rows are missing that have the labels
        check_labels(annotations, config, findings)
    images = load_images(annotations, config, findings)
    if not findings.errors:  # else pictures may be missing
        check_duplicates(annotations, images, findings)
    findings.settle()
    return annotations, images, findings.warnings
