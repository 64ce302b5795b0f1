"""A test runs each block of the documents, or tests/documents.py says why none can."""

import re
from pathlib import Path

import pytest

from scripts.local.stack import ROOT
from tests.documents import NOT_RUN, blocks, reason_not_run, runnable

DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", "docs", "docs/decisions", "piqueue")
    for path in (ROOT / folder).glob("*.md")
)


TESTS = [path.read_text() for path in sorted(Path(ROOT, "tests").rglob("test_*.py"))]


def found(call: str) -> list[str]:
    """What a pattern of a call finds in the tests."""
    return [one for text in TESTS for one in re.findall(call, text, re.MULTILINE)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_block_is_run_or_has_a_reason(document: str) -> None:
    name = re.escape(document)
    # Tests that take all blocks, and unpack or count them; otherwise each is named by its text.
    takes_all = found(rf"^.*\brunnable\(\"{name}\"\)")
    assert all("=" in line for line in takes_all)
    parts = found(rf"\bblock_of\(\"{name}\", \"(.+?)\"\)")
    for block in () if takes_all else runnable(document):
        assert any(part in block.text for part in parts), f"no test runs {block.text}"


def test_each_reason_belongs_to_a_block() -> None:
    for document, reasons in NOT_RUN.items():
        texts = [block.text for block in blocks(document)]
        for start in reasons:
            assert any(text.startswith(start) for text in texts), f"{document}: {start}"


def test_a_new_block_has_no_reason() -> None:
    [_, *others] = blocks("docs/using.md")
    assert [reason_not_run("OPERATIONS.md", block) for block in others] == [None] * len(others)
