"""Results as an Excel workbook."""

import csv
import io
import sys
import tempfile
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from piqueue.commands import workbook
from piqueue.commands.results import results_format
from piqueue.commands.terminal import CommandFailed

HEADER = ("id", "sku", "price", "Größe", "beach", "error_detail")


def written(*rows: Sequence[str], header: Sequence[str] = HEADER) -> Any:
    """Write rows as the API does, and read the workbook."""
    target = io.BytesIO()
    workbook.write_workbook(table([header, *rows]), target)
    return openpyxl.load_workbook(target)


def table(rows: Iterable[Sequence[str]]) -> io.StringIO:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return io.StringIO(text.getvalue(), newline="")


def test_numbers_are_numbers_and_everything_else_stays_as_it_is_written() -> None:
    (sheet,) = written(
        ("1", "007", "12.50", "Öl", "0.99706", ""),
        ("2", "12", "9", "", "1e-05", "text\x01, not a picture"),
    )
    assert [*sheet.values] == [
        HEADER,
        (1, "007", 12.5, "Öl", 0.99706, None),
        (2, "12", 9, None, 1e-05, "text\ufffd, not a picture"),
    ]
    assert sheet["C2"].number_format == "0.00"  # shown as 12.50
    assert sheet.freeze_panes == "A2"


@pytest.mark.parametrize(
    "cell", ["1234567890123456", "+1", "1,5", "1e5", "1e-10", "-", ".5", "٣", "0x1"]
)
def test_a_column_with_a_cell_that_excel_would_change_is_text(cell: str) -> None:
    (sheet,) = written(("7",), (cell,), header=["id"])
    assert [*sheet.values] == [("id",), ("7",), (cell,)]


@pytest.mark.parametrize("formula", ["=1+1", "+cmd", "-1+1", "@SUM(A1)", "\t=1"])
def test_a_formula_is_shown_and_does_not_run(formula: str) -> None:
    (sheet,) = written((f"'{formula}", "'quoted'"), header=["'=A1", "note"])
    assert (sheet["A1"].value, sheet["A1"].data_type) == ("=A1", "s")
    assert (sheet["A2"].value, sheet["A2"].data_type) == (formula, "s")
    assert sheet["B2"].value == "'quoted'"


def test_more_rows_than_a_sheet_has_go_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "SHEET_ROWS", 3)
    book = written(*([str(number)] for number in range(5)), header=["id"])
    assert book.sheetnames == ["results 1", "results 2", "results 3"]
    ids = [[row[0] for row in sheet.values] for sheet in book]
    assert ids == [["id", 0, 1], ["id", 2, 3], ["id", 4]]
    assert written(header=["id"]).sheetnames == ["results 1"]


def test_what_a_workbook_cannot_hold_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    (sheet,) = written(("a" * 140_000,), header=["id"])
    assert sheet["A2"].value == "a" * 32_767
    assert "1 cells are cut to 32,767 characters" in capsys.readouterr().err
    with pytest.raises(CommandFailed, match=r"16,385 columns.*at most 16,384: add --top-k"):
        written(header=["label"] * 16_385)
    assert csv.field_size_limit() == 131_072, "tables that are submitted keep their limit"


def test_the_memory_does_not_grow_with_the_rows() -> None:
    def peak_bytes(count: int) -> int:
        rows = table([HEADER, *([str(number), *"abcde"] for number in range(count))])
        with tempfile.TemporaryFile() as target:
            tracemalloc.start()
            workbook.write_workbook(rows, target)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return peak

    peak_bytes(10)
    assert peak_bytes(2000) < peak_bytes(200) + 100_000


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    monkeypatch.setattr(workbook, "find_spec", lambda _name: None)
    with pytest.raises(CommandFailed, match=r"pip install 'piqueue\[tables\]', or write \.csv"):
        results_format(Path("results.xlsx"))
