"""`scripts/bootstrap` uses the Python that was asked for."""

import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from scripts.local.stack import ROOT

# Of a version that fits, and unable to make a virtual environment: the message then names it.
UNABLE = """#!/bin/sh
case "$2" in *sys.exit*) exit 0 ;; *) exit 1 ;; esac
"""


@pytest.mark.parametrize(
    ("named", "found", "message"),
    [
        (None, ["python3", "python3.12"], "python3 has neither ensurepip nor pip"),
        ("python3.12", ["python3", "python3.12"], "python3.12 has neither ensurepip nor pip"),
        ("python3.99", ["python3"], "needs Python 3.11, 3.12 or 3.13; PYTHON=python3.99 has none"),
    ],
)
def test_the_python_that_was_asked_for_is_used(
    named: str | None, found: list[str], message: str, tmp_path: Path
) -> None:
    script = tmp_path / "project/scripts/bootstrap"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "scripts/bootstrap", script)
    kept = tmp_path / "project/.venv/kept"
    kept.parent.mkdir()
    kept.touch()
    for name in found:
        (tmp_path / name).write_text(UNABLE)
        (tmp_path / name).chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHON"}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    environment |= {"PYTHON": named} if named else {}
    ran = subprocess.run([script, "dev"], env=environment, capture_output=True, text=True)
    assert ran.returncode == 69
    assert message in ran.stderr
    assert kept.exists() == ("has none" in message), "nothing is removed before a Python is found"


def test_a_stamp_is_replaced_and_not_written_in_place(tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/bootstrap", root / "scripts")
    for name in ("pyproject.toml", "piqueue/pyproject.toml", "constraints.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(f"{name}\n")
    stamps, programs = root / ".venv/.bootstrap", root / ".venv/bin"
    for folder in (stamps, programs):
        folder.mkdir(parents=True)
    (programs / "pip").write_text(f"#!{programs}/python\n")
    (programs / "python").write_text("#!/bin/sh\nexit 0\n")
    (programs / "python").chmod(0o755)
    (stamps / "dev").write_text("of earlier pins\n")
    copy = tmp_path / "copy"
    copy.hardlink_to(stamps / "dev")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHON"}
    subprocess.run([root / "scripts/bootstrap", "dev"], env=environment, check=True)
    assert copy.read_text() == "of earlier pins\n"
    assert "constraints.txt" in (stamps / "dev").read_text()
    assert [one.name for one in stamps.iterdir()] == ["dev"]


def test_serve_installs_what_the_results_in_the_documents_need() -> None:
    """docs/using.md writes results.parquet with what scripts/serve starts."""
    [extras] = re.findall(r'/scripts/bootstrap" (.+)', (ROOT / "scripts/serve").read_text())
    assert "-o results.parquet" in (ROOT / "docs/using.md").read_text()
    assert extras.split() == ["local", "parquet"]


def test_bootstrap_and_ci_know_the_versions_that_the_project_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lower, upper = re.findall(r"3\.(\d+)", project["requires-python"])
    versions = [f"3.{minor}" for minor in range(int(lower), int(upper))]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["code"]["strategy"]["matrix"]["python"] == versions
    script = (ROOT / "scripts/bootstrap").read_text()
    assert script.count(f"(3, {lower}) <= sys.version_info < (3, {upper})") == 2
    assert f"Python {', '.join(versions[:-1])} or {versions[-1]}" in script


def test_every_package_runs_on_the_python_of_debian_12() -> None:
    needed = {
        one.name: str(one.metadata.json.get("requires_python", "")) for one in distributions()
    }
    unfit = {name: needs for name, needs in needed.items() if "3.11.2" not in SpecifierSet(needs)}
    assert not unfit, "pin an earlier release in constraints.txt"
