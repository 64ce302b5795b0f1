"""Both wheels, installed beside a project whose packages have the names of ours."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from scripts.local.stack import ROOT
from tests.pictures import jpeg

# Modules and folders of scripts/ that need a clone.
DEVELOPER_TOOLS = ("audit", "bench", "chaos", "docs", "faults", "fuzz", "images", "screenshots")
NAMES = ("api", "model", "scripts", "tests", "worker")
MODELS = (".keras", ".tflite", ".h5")


class Environment:
    """A virtual environment, used from a folder of the project."""

    def __init__(self, folder: Path, project: Path) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"
        self.packages = next(folder.glob("lib/python3.*/site-packages"))
        self._project = project
        given = {name: os.environ[name] for name in os.environ if not name.startswith("PYTHON")}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        self.env = {**given, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.bin / command[0]), *map(str, command[1:])],
            cwd=self._project,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str | Path, code: int = 0) -> str:
        process = self.start(*command)
        output, said = process.communicate(timeout=200)
        assert process.returncode == code, said
        return output + said

    def install(self, *what: str | Path) -> None:
        self.run("python", "-m", "pip", "install", "--quiet", *what)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's project: `api.OWNER` and so on are the user's."""
    folder = tmp_path_factory.mktemp("project")
    for name in NAMES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("OWNER = 'user'\n")
    (folder / "beach.jpg").write_bytes(jpeg(1))
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build both wheels; gives them by the names of their distributions."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, ROOT / "piqueue", ROOT], check=True, cwd=folder)
    return {wheel.name.partition("-")[0]: wheel for wheel in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def installed(
    wheels: dict[str, Path], project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """Install the client with all that it needs, from the package index."""
    environment = Environment(tmp_path_factory.mktemp("client"), project)
    environment.install(wheels["piqueue"])
    return environment


@pytest.fixture(scope="module")
def served(
    wheels: dict[str, Path], project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """Install both and run the server; the environment has its address.

    The packages of others are those of the environment of this test.
    """
    environment = Environment(tmp_path_factory.mktemp("server"), project)
    environment.install("--no-deps", *wheels.values())
    others = [path for path in sys.path if path.endswith("site-packages")]
    (environment.packages / "others.pth").write_text("\n".join(others))
    data = tmp_path_factory.mktemp("serve")
    process = environment.start("piqueue", "serve", "--port", "0", "--data", data)
    assert process.stdout
    assert process.stderr
    with process:
        try:
            found = re.match(r"Piqueue listens on (http://\S+);", process.stdout.readline())
            assert found, process.stderr.read()
            environment.env["PIQUEUE_URL"] = found[1]
            yield environment
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


def test_the_client_is_ten_packages_and_one_name(installed: Environment) -> None:
    listed = json.loads(installed.run("python", "-m", "pip", "list", "--format", "json"))
    names = {one["name"].lower() for one in listed} - {"pip", "setuptools"}
    assert "piqueue" in names
    assert len(names) <= 10, names
    listing = "import importlib.metadata as m; print(*m.files('piqueue'), sep='\\n')"
    files = installed.run("python", "-c", listing).splitlines()
    tops = {Path(file).parts[0] for file in files}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"..", "piqueue"}
    assert not [path for path in installed.packages.rglob("*") if path.suffix in MODELS]


def test_the_client_works_beside_packages_of_the_same_names(installed: Environment) -> None:
    program = f"import {', '.join(NAMES)}; from piqueue import AsyncClient, Client; "
    program += f"print({', '.join(f'{name}.OWNER' for name in NAMES)})"
    assert installed.run("python", "-c", program).split() == ["user"] * len(NAMES)
    assert "piqueue submit photos.csv" in installed.run("piqueue", "submit", "--help")
    closed = ("--url", "http://127.0.0.1:9")
    assert "no answer from http://127.0.0.1:9" in installed.run(
        *("piqueue", "status", "job_1", *closed), code=1
    )


def test_the_server_is_one_folder(wheels: dict[str, Path]) -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheels["piqueue_server"]],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    files = [line.split()[0] for line in listing.splitlines()[1:]]
    tops = {file.partition("/")[0] for file in files}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"piqueue_server"}
    tracked = subprocess.run(
        ["git", "ls-files", "api", "model", "worker", "scripts/samples"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")[:-1]
    assert not {f"piqueue_server/{file}" for file in tracked} - set(files)
    tools = tuple(f"piqueue_server/scripts/{name}" for name in DEVELOPER_TOOLS)
    assert not [file for file in files if file.startswith(tools)]


def test_the_server_scores_pictures_beside_packages_of_the_same_names(
    served: Environment, project: Path
) -> None:
    with Image.open(project / "beach.jpg") as picture:
        picture.save(project / "beach.tif")  # decoded in a process of its own
    pictures = ("beach.jpg", "beach.tif")
    assert "2 of 2 succeeded" in served.run("piqueue", "submit", *pictures, "-o", "results.csv")
    with (project / "results.csv").open(newline="") as file:
        assert [(row["id"], row["status"]) for row in csv.DictReader(file)] == [
            ("beach.jpg", "succeeded"),
            ("beach.tif", "succeeded"),
        ]
    assert "scenes" in served.run("piqueue", "models", "list")
    assert "piqueue keys add" in served.run("piqueue", "keys", "--help")
    assert "user" in served.run("python", "-c", "import api; print(api.OWNER)")
    elsewhere = served.run("piqueue", "labels", "split", "nowhere.csv", code=1)
    assert "nowhere.csv does not exist: give the path of a table" in elsewhere
