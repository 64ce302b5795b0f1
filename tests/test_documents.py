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


def runs(document: str) -> list[str]:
    """The tests that take the blocks of a document, and unpack them or count them."""
    call = re.compile(rf"^.*\brunnable\(\"{re.escape(document)}\"\)", re.MULTILINE)
    texts = {path: path.read_text() for path in sorted(Path(ROOT, "tests").rglob("test_*.py"))}
    return [line for text in texts.values() for line in call.findall(text)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_block_is_run_or_has_a_reason(document: str) -> None:
    if runnable(document):
        taken = runs(document)
        assert taken, f"no test runs {[block.text for block in runnable(document)]}"
        assert all("=" in line for line in taken)


def test_each_reason_belongs_to_a_block() -> None:
    for document, reasons in NOT_RUN.items():
        texts = [block.text for block in blocks(document)]
        for start in reasons:
            assert any(text.startswith(start) for text in texts), f"{document}: {start}"


def test_a_new_block_has_no_reason() -> None:
    [_, *others] = blocks("docs/using.md")
    assert [reason_not_run("OPERATIONS.md", block) for block in others] == [None] * len(others)
