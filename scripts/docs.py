"""Writes what the documents repeat of the code: the settings table of docs/settings.md.

`python -m scripts.docs` writes it; with `--check` it only says whether it is up to date.
"""

import argparse
import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from worker.jobs.settings import ARTIFACTS_PATH, PREFIX, Settings

PATH = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """# Settings

Every process reads these from its environment; a misspelt name or an unfit value stops its start
with a sentence that says what to change. `python -m scripts.docs` writes this table.

| variable | default | what it sets |
|---|---|---|
"""


def settings_document() -> str:
    """Give the text of docs/settings.md."""
    rows = (
        f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description} |\n"
        for name, field in sorted(Settings.model_fields.items())
    )
    return HEAD + "".join(rows)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "the number of cores"
    if field.default == ARTIFACTS_PATH:
        return "`model/artifacts`"
    if field.default in ((), None):
        return "none"
    if isinstance(field.default, tuple):
        return f"`{','.join(str(part) for part in field.default)}`"
    return f"`{field.default}`"


def main() -> int:
    """Write the document or check it, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    if not parser.parse_args().check:
        PATH.write_text(settings_document())
    elif PATH.read_text() != settings_document():
        print(f"{PATH.name} is out of date: run python -m scripts.docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
