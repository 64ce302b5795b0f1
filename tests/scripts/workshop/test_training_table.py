"""Which columns and cells of a table are labels, for piqueue teach, train and evaluate."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest

from model.training.config import DataConfig, TrainingError
from model.training.data.dataset import DataProblems, read_annotations
from scripts.commands.__main__ import main
from scripts.workshop.label_table import LabelTable
from scripts.workshop.reports.scoring import find_pictures
from scripts.workshop.teach import _read_labels
from tests.model.training.pictures import write_pictures

COUNT = 24


def write_table(folder: Path, **columns: Sequence[str]) -> Path:
    """A table of pictures, which are in `folder`, with columns of COUNT cells."""
    path = write_pictures(folder, COUNT)
    lines = [",".join(["name", *columns])]
    for number, cells in enumerate(zip(*columns.values(), strict=True)):
        lines.append(",".join([f"{number:03}.png", *cells]))
    path.write_text("\n".join(lines))
    return path


def check(table: Path) -> int:
    """The exit code of piqueue train --check_only."""
    arguments = ["--model", table.parent / "models/mine/1", "--runs_path", table.parent / "runs"]
    return main(["train", str(table), *map(str, arguments), "--check_only"])


@pytest.mark.parametrize(
    ("no", "yes"),
    [
        ("0", "1"),
        ("0 ", " 1"),
        ("0.0", "1.0"),
        ("FALSE", "TRUE"),
        ("false", "true "),
        ("0", "True"),
    ],
)
def test_0_and_1_are_read_however_they_are_written(no: str, yes: str, tmp_path: Path) -> None:
    expected = [number % 2 for number in range(COUNT)]
    table = write_table(tmp_path, red=[yes if one else no for one in expected])
    config, annotations, warnings = _read_labels(table)
    assert (config.targets, annotations.labels[:, 0].tolist()) == (("red",), expected)
    assert not any("unused" in warning for warning in warnings)
    assert check(table) == 0
    options = Namespace(pictures=table, images=None, split=None, use_guessed=False)
    measured = find_pictures(options, ["red"]).truth
    assert measured is not None
    assert measured[:, 0].tolist() == expected
    labelled = LabelTable.open(table, ["red"])
    assert [bool(labelled.get(name)) for name in annotations.names] == expected


@pytest.mark.parametrize("wrong", ["O", "2", "yes"])
def test_a_label_with_a_wrong_cell_is_an_error(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [str(number % 2) for number in range(COUNT)]
    red = [*cells[:7], wrong, "", *cells[9:]]
    table = write_table(tmp_path, red=red, blue=[str(number // 2 % 2) for number in range(COUNT)])
    says = (
        f"{table}: 1 error\n  row 9: column red is {wrong!r}: write 0 or 1, or remove the column "
        "if it is not a label"
    )
    with pytest.raises(TrainingError) as refused:
        _read_labels(table)
    assert str(refused.value) == says
    assert check(table) == 2
    assert says in capsys.readouterr().err


def test_columns_of_something_else_are_unused(tmp_path: Path) -> None:
    numbers = range(COUNT)
    table = write_table(
        tmp_path,
        red=[str(number % 2) for number in numbers],
        floor=["2" if number % 8 == 7 else str(number % 2) for number in numbers],
        index=[str(number) for number in numbers],
        note=["", *["sea"] * (COUNT - 1)],
    )
    config, _, warnings = _read_labels(table)
    assert config.targets == ("red",)
    assert "unused columns: floor, index, note" in warnings


def test_the_other_columns_do_not_matter_beside_a_column_label(tmp_path: Path) -> None:
    kinds = ["true", "x ", " x", "x"] * (COUNT // 4)
    table = write_table(tmp_path, label=kinds, red=["2", *"01" * 11, "0"])
    config, annotations, _ = _read_labels(table)
    assert (config.label_col, config.targets) == ("label", ("true", "x"))
    assert annotations.labels[:, 1].tolist() == [0, 1, 1, 1] * (COUNT // 4)
    options = Namespace(pictures=table, images=None, split=None, use_guessed=False)
    measured = find_pictures(options, ["true", "x"]).truth
    assert measured is not None
    assert (measured == annotations.labels).all()


def test_labels_with_spaces_in_the_configuration_are_kept(tmp_path: Path) -> None:
    table = write_table(tmp_path, label=["x", "x "] * (COUNT // 2))
    settings = {"images_base_path": tmp_path, "label_col": "label", "targets": ["x", "x "]}
    problems = DataProblems(table)
    annotations = read_annotations(table, DataConfig.model_validate(settings), problems)
    assert problems.errors == []
    assert annotations.labels[:2].tolist() == [[1, 0], [0, 1]]


def test_a_table_without_labels_names_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path, price=["1", *["12"] * (COUNT - 1)], note=["sea"] * COUNT)
    assert check(table) == 2
    says = f"{table} has no labels: price, note (price is '12' in row 3): add a column of 0 and 1"
    assert says in capsys.readouterr().err
    with pytest.raises(TrainingError, match="has no labels: price, note"):
        _read_labels(table)
    table.write_text("name\n000.png\n")
    with pytest.raises(TrainingError, match="has no labels: add a column of 0 and 1"):
        _read_labels(table)
