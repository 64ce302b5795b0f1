"""docs/architecture.md describes the repository as it is, and its folders are as it says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = ("api", "model", "piqueue", "scripts", "worker")
MOST_MODULES = 14


def python_folders() -> dict[str, list[str]]:
    """Name the modules of each folder, without `__init__.py`."""
    folders: dict[str, list[str]] = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        if path.name != "sitecustomize.py":  # no module, and in no package
            names = folders.setdefault(str(path.parent.relative_to(ROOT)), [])
            names.extend([path.name] if path.name != "__init__.py" else [])
    return folders


def tree() -> set[str]:
    """Name the folders that the page's tree lists."""
    block = PAGE.partition("```\n")[2].partition("```")[0]
    named: list[str] = []
    listed = set()
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        named[depth:] = [name.rstrip("/")]
        listed.add("/".join(named))
    return listed


def test_the_tree_lists_every_folder_with_modules() -> None:
    missing = set(python_folders()) - tree()
    assert missing == set()
    assert all((ROOT / folder).is_dir() for folder in tree())


def test_every_path_on_the_page_exists() -> None:
    paths = re.findall(r"`((?:api|docs|model|piqueue|scripts|tests|worker)/[\w./-]*)`", PAGE)
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists() and "NAME" not in path] == []
    links = re.findall(r"\]\(([\w./-]+)\)", PAGE)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


@pytest.mark.parametrize("folder", sorted(python_folders()))
def test_a_folder_says_in_one_sentence_what_it_is_for(folder: str) -> None:
    body = ast.parse((ROOT / folder / "__init__.py").read_text()).body
    docstring = ast.get_docstring(ast.Module(body[:1], []))
    assert docstring, f"{folder}/__init__.py has no docstring"
    assert "\n\n" not in docstring
    assert docstring.endswith(".")
    if folder != "piqueue":  # which gives its public names too
        assert len(body) == 1
    assert len(python_folders()[folder]) <= MOST_MODULES
