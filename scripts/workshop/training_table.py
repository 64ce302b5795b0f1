"""Finds out how the pictures of a table or a folder are labelled."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.training.config import TrainingError
from model.training.data.dataset import DataProblems
from model.training.data.table import (
    TableUnreadable,
    label_cell,
    read_table,
    wrong_label_cells,
)
from piqueue.commands.pictures import as_id, find_pictures
from scripts.workshop.label_table import LABEL, NAME, RESERVED, SPLIT, is_label
from scripts.workshop.table_file import csv_bytes, replace_file

TABLE_NAME = "labels.csv"
_SPLITS = {"train", "val"}


def find_table(source: Path, written: Path) -> tuple[Path, Path | None]:
    """The table of `source`, and the folder of its pictures if it is known.

    `source` is a table, a folder with a labels.csv, or a folder with a subfolder of pictures for
    each label, whose table is written to `written`. There may be such subfolders in `train` and
    `val`.

    Raises:
        TrainingError: a folder has neither.
    """
    if not source.is_dir():
        return source, None
    if (source / TABLE_NAME).is_file():
        return source / TABLE_NAME, None
    names = [as_id(path.relative_to(source)) for path in find_pictures(source)]
    has_splits = {name.partition("/")[0] for name in names} == _SPLITS
    depth = 2 if has_splits else 1
    rows = []
    for name in names:
        *folders, _ = name.split("/")
        if len(folders) < depth:
            raise TrainingError(
                f"{source / name} is in no folder of a label: move it into one, such as "
                f"{source.joinpath(*folders, 'beach')}, or give a table of labels"
            )
        row = {NAME: name, LABEL: folders[depth - 1]}
        rows.append(row | {SPLIT: folders[0]} if has_splits else row)
    if len({row[LABEL] for row in rows}) < 2:
        raise TrainingError(
            f"{source} says no labels: add a {TABLE_NAME}, or at least two folders of pictures, "
            "each named after its label"
        )
    written.parent.mkdir(parents=True, exist_ok=True)
    replace_file(written, csv_bytes(list(rows[0]), rows))
    return written, source


def describe(table: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings of a DataConfig that are missing from `settings` and follow from `table`.

    Without targets, the labels are the values of the column `label`, or else all columns of 0 and
    1. The pictures are beside the table or in the folder `images` there.

    Raises:
        TrainingError: the table cannot be read or has no labels, a column of 0 and 1 has a few
            other cells, or the pictures are elsewhere.
    """
    if settings.get("images_base_path") and settings.get("targets"):
        return {}
    try:
        columns, numbered = read_table(table)
    except TableUnreadable as error:
        raise TrainingError(str(error)) from error
    numbered = [
        (number, row) for number, row in numbered if any(row.values()) and None not in row.values()
    ]
    rows = [row for _, row in numbered]
    found: dict[str, Any] = {}
    name_col = settings.get("image_name_col", NAME)
    if not settings.get("images_base_path") and rows and name_col in columns:
        name = rows[0][name_col]
        folders = [f for f in (table.parent, table.parent / "images") if (f / name).is_file()]
        if not folders:
            raise TrainingError(f"{table}: {name} is not beside it: give --images FOLDER")
        found["images_base_path"] = folders[0]
    if not settings.get("targets"):
        label_col = settings.get("label_col") or LABEL
        cells = {
            column: [label_cell(row[column]) for row in rows]
            for column in columns
            if column not in (*RESERVED, name_col)
        }
        if label_col in cells:  # whose labels may be true and false
            cells[label_col] = [row[label_col].strip() for row in rows]
        binary = tuple(column for column in cells if is_label(cells[column]))
        if label_col in columns and label_col not in binary:
            found["label_col"] = label_col
            found["targets"] = sorted({row[label_col].strip() for row in rows} - {""})
        else:
            _check_columns(table, cells, [number for number, _ in numbered], label_col)
            found["targets"] = binary
    return found


def _check_columns(
    table: Path, cells: Mapping[str, Sequence[str]], numbers: Sequence[int], label_col: str
) -> None:
    """Raise TrainingError if no column is a label, or one is but for a few cells."""
    problems = DataProblems(table)
    for column, values in cells.items():
        problems.errors += [
            f"row {numbers[index]}: column {column} is {values[index]!r}: write 0 or 1, or remove "
            "the column if it is not a label"
            for index in wrong_label_cells(values)
        ]
    problems.raise_errors()
    if any(is_label(values) for values in cells.values()):
        return
    looked_at = ""
    if cells:
        first, values = next(iter(cells.items()))
        at = next(index for index, cell in enumerate(values) if cell not in ("0", "1"))
        looked_at = f": {', '.join(cells)} ({first} is {values[at]!r} in row {numbers[at]})"
    raise TrainingError(
        f"{table} has no labels{looked_at}: add a column of 0 and 1 for each label, or a column "
        f"{label_col} with the label of each picture"
    )
