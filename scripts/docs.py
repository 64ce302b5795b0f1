"""Writes what the documents repeat of the code: the settings, in docs/settings.md and README.md.

`python -m scripts.docs` writes them; with `--check` it only says whether they are up to date.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from pydantic.fields import FieldInfo

from worker.jobs.settings import ARTIFACTS_PATH, PREFIX, Settings

ROOT = Path(__file__).parents[1]
SETTINGS, README = ROOT / "docs" / "settings.md", ROOT / "README.md"
BEGIN, END = "<!-- settings, written by scripts.docs -->\n", "<!-- end of settings -->\n"
# What most people set first; the rest is in docs/settings.md.
FIRST = (
    *("redis_url", "threads", "engine", "default_model", "registry_url", "job_ttl_s", "max_items"),
    *("max_item_bytes", "max_pixels", "fetch_timeout_s", "fetch_allow_networks"),
    *("storage_url", "allow_no_keys"),
)
TABLE = "| variable | default | what it sets |\n|---|---|---|\n"
HEAD = """# Settings

Every process reads these variables from its environment. A misspelt name or an invalid value stops
the process at its start, with a message that says what to change. `python -m scripts.docs` writes
this table.

"""


def documents() -> dict[Path, str]:
    """Give the text that each document must have."""
    readme = README.read_text()
    before, after = readme[: readme.index(BEGIN) + len(BEGIN)], readme[readme.index(END) :]
    return {
        SETTINGS: HEAD + _table(sorted(Settings.model_fields)),
        README: before + _table(FIRST) + after,
    }


def _table(names: Iterable[str]) -> str:
    table = TABLE
    for name in names:
        field = Settings.model_fields[name]
        about = " ".join((field.description or "").split())
        table += f"| `{PREFIX}{name.upper()}` | {_default(field)} | {about} |\n"
    return table


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "the number of cores"
    if field.default == ARTIFACTS_PATH:
        return "`model/bundled`"
    if field.default in ((), None):
        return "none"
    if isinstance(field.default, tuple):
        return f"`{','.join(str(part) for part in field.default)}`"
    return f"`{field.default}`"


def main() -> int:
    """Write the documents or check them, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="only check whether the documents are up to date"
    )
    check = parser.parse_args().check
    stale = [path for path, text in documents().items() if path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.name} is out of date: run python -m scripts.docs", file=sys.stderr)
        else:
            path.write_text(documents()[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
