"""The table of labels while several programs change it: merges, conflicts, backups."""

import csv
import errno
import fcntl
import io
import multiprocessing
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NoReturn

import pytest

from piqueue.commands.terminal import CommandFailed
from scripts.workshop import label_table
from scripts.workshop.label_merge import Answer
from scripts.workshop.label_table import LabelTable
from scripts.workshop.table_file import locked

HEADER = "name,beach,city,guessed,url\r\n"
ROWS = (
    "a.jpg,1,0,yes,https://example.com/a\r\n"
    "b.jpg,0,1,,https://example.com/b\r\n"
    "c.jpg,0,1,yes,https://example.com/c\r\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table in which b.jpg has an answer and the others have guesses."""
    table = tmp_path / "labels.csv"
    table.write_bytes((HEADER + ROWS).encode())
    return table


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def answers(path: Path) -> dict[str, str]:
    """The labels of each picture in the file, with ? if they are guesses, - if it is left out."""
    return {
        name: "-"
        if row.get("left_out")
        else "+".join(label for label in ("beach", "city") if row[label] == "1")
        + "?" * bool(row.get("guessed"))
        for name, row in rows_of(path).items()
    }


def as_excel_saves(path: Path) -> None:
    """Reverse the rows, add a column, rewrite numbers in other columns, mark the encoding."""
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    text = io.StringIO(newline="")
    columns = ["remark", *rows[0]]
    writer = csv.DictWriter(text, columns, lineterminator="\r\n", restval="from Excel")
    writer.writeheader()
    writer.writerows({**row, "id": "1.23457E+11"} for row in reversed(rows))
    path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())


def test_answers_of_two_programs_are_merged_by_picture(path: Path) -> None:
    first, second = LabelTable.open(path), LabelTable.open(path)
    first.answer("a.jpg", {"beach"})
    first.answer("new.jpg", set())
    assert first.save() == {}
    second.answer("c.jpg", None)
    second.answer("b.jpg", {"beach"})
    assert second.save() == {}
    assert second.get("a.jpg") == frozenset({"beach"})
    assert answers(path) == {"a.jpg": "beach", "b.jpg": "beach", "c.jpg": "-", "new.jpg": ""}
    first.answer("c.jpg", {"city"})
    assert first.save() == {"c.jpg": Answer(frozenset({"city"}), frozenset(), is_left_out=False)}
    assert first.is_left_out("c.jpg")
    assert answers(path) == {"a.jpg": "beach", "b.jpg": "beach", "c.jpg": "-", "new.jpg": ""}
    first.answer("c.jpg", {"city"})  # now that the other answer is known
    assert first.save() == {}
    assert answers(path)["c.jpg"] == "city"


def test_an_answer_that_was_overwritten_by_an_older_version_is_written_again(path: Path) -> None:
    before = path.read_bytes()
    table = LabelTable.open(path)
    table.answer("a.jpg", {"city"})
    table.answer("new.jpg", {"beach"})
    table.save()
    path.write_bytes(before)  # by a program that had read it earlier
    table.answer("c.jpg", set())
    assert table.save() == {}
    assert answers(path) == {"a.jpg": "city", "b.jpg": "city", "c.jpg": "", "new.jpg": "beach"}


def test_a_change_of_an_answer_that_was_saved_earlier_is_kept_and_reported(path: Path) -> None:
    first, second = LabelTable.open(path), LabelTable.open(path)
    first.answer("a.jpg", {"city"})
    first.save()
    second.answer("c.jpg", set())
    second.save()
    second.answer("a.jpg", {"beach"})
    assert second.save() == {}
    first.answer("new.jpg", set())
    assert first.save().keys() == {"a.jpg"}
    assert answers(path)["a.jpg"] == "beach"


def test_an_undone_answer_stays_undone_beside_another_program(path: Path) -> None:
    first, second = LabelTable.open(path), LabelTable.open(path)
    before = first.rows["a.jpg"]
    first.answer("a.jpg", {"city"})
    first.save()
    second.answer("c.jpg", {"beach"})
    second.save()
    first.set_row("a.jpg", before)
    first.save()
    assert answers(path) == {"a.jpg": "beach?", "b.jpg": "city", "c.jpg": "beach"}


def test_what_excel_changes_is_kept_and_so_are_the_answers(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"url\r\n", b"url,id\r\n").replace(
        b"\r\n", b",123456789012\r\n").replace(b"url,id,123456789012", b"url,id"))  # fmt: skip
    table = LabelTable.open(path)
    table.answer("a.jpg", {"city"})
    table.save()
    as_excel_saves(path)
    edited = path.read_text(encoding="utf-8-sig").replace("c.jpg,0,1,yes", "c.jpg,1,1,")
    path.write_bytes(b"\xef\xbb\xbf" + edited.replace("\n", "\r\n").encode())
    table.answer("b.jpg", set())
    assert table.save() == {}
    payload = path.read_bytes()
    assert payload.startswith(b"\xef\xbb\xbfremark,name,beach,city,guessed,url,id\r\n")
    assert answers(path) == {"c.jpg": "beach+city", "b.jpg": "", "a.jpg": "city"}
    assert {row["remark"] for row in rows_of(path).values()} == {"from Excel"}
    assert {row["id"] for row in rows_of(path).values()} == {"1.23457E+11"}
    assert table.get("c.jpg") == frozenset({"beach", "city"})


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (HEADER.replace(",", ";"), "separated by semicolons"),
        (HEADER.replace("city", "town") + ROWS, "has no column city, only name, beach, town"),
        (HEADER + ROWS.replace("a.jpg,1", "a.jpg,1.5"), "row 2: beach is '1.5'; write 0 or 1"),
        (HEADER + ROWS + ROWS, "row 5: a.jpg is listed twice"),
        ("", "is empty"),
        (None, "was removed after it was read: put it back"),
    ],
)
def test_a_file_that_is_no_such_table_any_more_is_not_overwritten(
    path: Path, written: str | None, message: str
) -> None:
    table = LabelTable.open(path)
    table.answer("a.jpg", {"city"})
    if written is None:
        path.unlink()
    else:
        path.write_text(written, newline="")
    with pytest.raises(CommandFailed, match=message):
        table.save()
    assert (path.read_text() if path.exists() else None) == (
        None if written is None else written.replace("\r\n", "\n")
    )
    path.write_bytes((HEADER + ROWS).encode())
    table.save()
    assert answers(path)["a.jpg"] == "city"


def test_the_file_is_backed_up_before_the_first_change(path: Path) -> None:
    before = path.read_bytes()
    backup = path.with_name("labels.csv.bak")
    table = LabelTable.open(path)
    table.save()
    assert not backup.exists()
    table.answer("a.jpg", {"city"})
    table.save()
    table.answer("b.jpg", {"city"})
    table.save()
    assert backup.read_bytes() == before


def test_a_guess_never_replaces_an_answer_whoever_writes_first(path: Path) -> None:
    for answer_first in (True, False):
        path.write_bytes((HEADER + ROWS).encode())
        page, search = LabelTable.open(path), LabelTable.open(path)
        page.answer("a.jpg", {"city"})
        search.add({"name": "a.jpg", "beach": "1", "city": "0", "guessed": "yes", "url": "x"})
        search.add({"name": "b.jpg", "beach": "1", "city": "1", "guessed": "yes", "url": "x"})
        for table in (page, search) if answer_first else (search, page):
            assert table.save() == {}
        assert answers(path) == {"a.jpg": "city", "b.jpg": "city", "c.jpg": "city?"}
        assert rows_of(path)["b.jpg"]["url"] == "https://example.com/b"


def test_a_new_label_is_a_guess_for_pictures_that_have_answers(path: Path) -> None:
    page, search = LabelTable.open(path), LabelTable.open(path)
    search.add_label("sunset")
    search.save()
    assert [row["guessed"] for row in rows_of(path).values()] == ["yes", "sunset", "yes"]
    page.answer("a.jpg", {"beach"})  # the page does not know the new label
    page.answer("new.jpg", {"beach"})
    assert page.save() == {}
    rows = rows_of(path)
    assert [row["guessed"] for row in rows.values()] == ["sunset", "sunset", "yes", "sunset"]
    reopened = LabelTable.open(path)
    assert reopened.labels == ("beach", "city", "sunset")
    assert reopened.guessed("new.jpg") == {"sunset"}


def test_an_empty_cell_of_a_label_is_a_guess(path: Path) -> None:
    path.write_text("name,beach,sunset\na.jpg,1,\nb.jpg,,\n")
    table = LabelTable.open(path, ["beach", "sunset"])
    assert [table.guessed(name) for name in table.rows] == [{"sunset"}, {"beach", "sunset"}]
    table.answer("b.jpg", {"sunset"})
    table.save()
    assert path.read_text() == "name,beach,sunset,guessed\na.jpg,1,0,sunset\nb.jpg,0,1,\n"


def _label(path: Path, number: int, count: int, together: Barrier) -> None:
    """Answer pictures, saving each answer together with the other process."""
    table = LabelTable.open(path)
    for at in range(count):
        if at == count // 2:
            table = LabelTable.open(path)
        table.answer(f"{number}-{at}.jpg", {"beach"} if at % 2 else {"city"})
        together.wait(60)
        assert table.save() == {}


def test_no_answer_of_two_processes_is_lost(path: Path) -> None:
    count = 25
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    processes = [
        context.Process(target=_label, args=(path, number, count, together)) for number in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    found = answers(path)
    assert len(found) == 3 + 2 * count
    for number in range(2):
        for at in range(count):
            assert found[f"{number}-{at}.jpg"] == ("beach" if at % 2 else "city")
    assert not list(path.parent.glob("*.part"))


def test_a_link_to_the_table_has_the_same_lock_and_stays_a_link(path: Path) -> None:
    link = path.with_name("elsewhere") / "labels.csv"
    link.parent.mkdir()
    link.symlink_to(path)
    lock = path.with_name(".labels.csv.lock").open("w")
    with lock, locked(link), pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    first, second = LabelTable.open(path), LabelTable.open(link)
    first.answer("a.jpg", {"beach"})
    first.save()
    second.answer("c.jpg", {"beach"})
    second.save()
    assert link.is_symlink()
    assert not (link.parent / ".labels.csv.lock").exists()
    assert answers(path) == {"a.jpg": "beach", "b.jpg": "city", "c.jpg": "beach"}


@pytest.mark.parametrize("call", ["locked", "replace_file"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_table_that_cannot_be_written_stays_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    before = path.read_bytes()
    table = LabelTable.open(path)
    table.answer("a.jpg", {"city"})
    with monkeypatch.context() as broken:
        broken.setattr(label_table, call, fail)
        with pytest.raises(CommandFailed, match=os.strerror(code)) as told:
            table.save()
    assert "labels.csv cannot be written" in str(told.value)
    assert path.read_bytes() == before
    table.save()
    assert answers(path) == {"a.jpg": "city", "b.jpg": "city", "c.jpg": "city?"}
