"""A CSV of names and labels and a folder of pictures, read into arrays."""

import csv
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.images import ImageRejected, decode
from model.training.config import DataConfig, TrainingError

Pixels = NDArray[np.uint8]
Labels = NDArray[np.float32]

VAL_SHARE = 5
"""One picture in this many goes to the validation split where the CSV names none."""


@dataclass(frozen=True)
class Annotations:
    """The rows of the CSV: names, labels (n, n_labels) of 0 and 1, and which rows are `val`."""

    names: tuple[str, ...]
    labels: Labels
    is_val: NDArray[np.bool_]


def read_annotations(csv_path: Path, config: DataConfig) -> Annotations:
    """The checked rows of `csv_path`, in order of name.

    Raises TrainingError naming the column or the row (the header is row 1) that is wrong.
    """
    try:
        with csv_path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{csv_path} cannot be read as CSV: {error}") from error
    missing = [c for c in (config.image_name_col, *config.targets) if c not in columns]
    if missing:
        raise TrainingError(
            f"{csv_path} lacks the column(s) {', '.join(missing)}; it has {', '.join(columns)}. "
            "Name its columns in image_name_col and targets of the data config"
        )
    has_split = config.split_col in columns
    read: dict[str, tuple[list[int], str]] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{csv_path}, row {number}"
        name = row[config.image_name_col]
        if not name:
            raise TrainingError(f"{where}: no picture name in column {config.image_name_col}")
        if name in read:
            raise TrainingError(f"{where}: {name} is listed twice; leave one row")
        for target in config.targets:
            if row[target] not in ("0", "1"):
                raise TrainingError(f"{where}: {target} is {row[target]!r}; write 0 or 1")
        split = row[config.split_col] if has_split else ""
        if has_split and split not in ("train", "val"):
            raise TrainingError(
                f"{where}: {config.split_col} is {split!r}; write train or val, "
                "or drop the column to have the rows split for you"
            )
        read[name] = ([int(row[target]) for target in config.targets], split)
    names = tuple(sorted(read))
    labels = np.array([read[name][0] for name in names], np.float32)
    if has_split:
        is_val = np.array([read[name][1] == "val" for name in names], np.bool_)
    else:
        is_val = stratified_folds(names, labels, VAL_SHARE) == 0
    _check_enough(csv_path, config, labels, is_val)
    return Annotations(names, labels, is_val)


def _check_enough(
    csv_path: Path, config: DataConfig, labels: Labels, is_val: NDArray[np.bool_]
) -> None:
    for split, part in (("train", labels[~is_val]), ("val", labels[is_val])):
        for target, column in zip(config.targets, part.T, strict=True):
            if column.size == 0 or column.min() == column.max():
                raise TrainingError(
                    f"{csv_path}: the {split} split needs pictures with and without {target}; "
                    "add rows or move some between the splits"
                )


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


def load_images(names: Sequence[str], config: DataConfig) -> Pixels:
    """The pictures as uint8 RGB (n, height, width, 3), decoded as serving decodes them.

    Raises TrainingError with every picture that is missing or refused.
    """
    images = np.empty((len(names), *config.input_shape), np.uint8)
    height, width = config.resize_shape

    def load(index: int) -> str | None:
        try:
            payload = (config.images_base_path / names[index]).read_bytes()
            images[index] = decode(payload, size=(height, width)).pixels
        except (OSError, ImageRejected) as error:
            return f"{names[index]}: {error}"
        return None

    with ThreadPoolExecutor() as pool:
        wrong = [problem for problem in pool.map(load, range(len(names))) if problem]
    if wrong:
        head = f"{len(wrong)} pictures under {config.images_base_path} cannot be used:"
        more = [f"and {len(wrong) - 10} more"] if len(wrong) > 10 else []
        advice = "Check images_base_path in the data config, or drop their rows"
        raise TrainingError("\n  ".join([head, *wrong[:10], *more, advice]))
    return images
