"""Every row of a table of promises names its tests; tests of faults and attacks have a row."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A document whose tables have a column of tests, and the files whose tests it must name.
DOCUMENTS = {
    "docs/promises.md": ("tests/faults/test_*.py",),
    "SECURITY.md": (
        "tests/api/test_foreign_requests.py",
        "tests/deploy/test_profile.py",
        "tests/test_secrets.py",
        "tests/**/test_hostile.py",
    ),
}


def named_in(path: Path) -> set[str]:
    """Name the tests in a file."""
    return {
        f"{path.relative_to(ROOT)}::{function.name}"
        for function in ast.parse(path.read_text()).body
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
    }


def promises(text: str) -> list[list[str]]:
    """Give the rows of each table whose last column is that of tests."""
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    rows = [[line.strip("| ").split(" | ") for line in table.splitlines()] for table in tables]
    return [row for table in rows if table[0][-1] == "test" for row in table[2:]]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_promise_names_tests_that_exist(document: str) -> None:
    rows = promises((ROOT / document).read_text())
    assert len(rows) > 15
    for *promise, tests in rows:
        named = re.findall(r"`(tests/\S+\.py)::(\w+)`", tests)
        assert named, f"{promise}: no test"
        for file, test in named:
            assert f"{file}::{test}" in named_in(ROOT / file), f"{promise}: {test} does not exist"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_of_faults_and_attacks_is_promised(document: str) -> None:
    promised = {
        test
        for *_, tests in promises((ROOT / document).read_text())
        for test in re.findall(r"`(\S+)`", tests)
    }
    for pattern in DOCUMENTS[document]:
        files = [*ROOT.glob(pattern)]
        assert files, pattern
        for path in files:
            missing = named_in(path) - promised
            assert not missing, f"no row of {document} names {missing}"


def test_a_row_without_tests_is_found_and_other_tables_are_ignored() -> None:
    text = (
        "| fault | test |\n|---|---|\n| one | `tests/a.py::test_a` |\n| two | none |\n\n"
        "| format | size |\n|---|---|\n| PNG | 4 |\n"
    )
    assert promises(text) == [["one", "`tests/a.py::test_a`"], ["two", "none"]]
