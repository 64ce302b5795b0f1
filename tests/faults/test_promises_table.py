"""Every row of the table of promises names a test, and the table names every fault test."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "promises.md"


def named_in(path: Path) -> set[str]:
    """Name the tests in a file."""
    functions = ast.parse(path.read_text()).body
    return {
        f"{path.relative_to(ROOT)}::{function.name}"
        for function in functions
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
    }


def rows() -> list[list[str]]:
    table = TABLE.read_text().partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def test_every_promise_names_tests_that_exist() -> None:
    assert len(rows()) > 15
    for fault, *_, tests in rows():
        named = re.findall(r"`(tests/\S+\.py)::(\w+)`", tests)
        assert named, f"{fault}: no test"
        for file, test in named:
            assert f"{file}::{test}" in named_in(ROOT / file), f"{fault}: {test} does not exist"


def test_every_fault_test_is_promised() -> None:
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    assert len(files) >= 3
    promised = TABLE.read_text()
    for path in files:
        for test in named_in(path):
            assert f"`{test}`" in promised, f"{TABLE.name} does not name {test}"
