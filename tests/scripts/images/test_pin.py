"""`scripts/pin_images`, with a program instead of Docker, as the registries are elsewhere."""

import hashlib
import stat
from pathlib import Path

import pytest
import yaml

from scripts.images import pin
from tests.scripts.images.test_images import COMPOSE, merged, read

# The arguments of `docker buildx imagetools inspect IMAGE --format …`.
INSPECT = """#!/bin/sh
test "$1 $2 $3 $5 $6" = "buildx imagetools inspect --format {{.Manifest.Digest}}" || exit 64
printf 'sha256:%s\\n' "$(printf %s "$4" | sha256sum | cut -d ' ' -f 1)"
"""


def run_with(docker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    program = tmp_path / "docker"
    program.write_text(docker)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("sys.argv", ["scripts/pin_images"])
    return pin.main()


def test_every_image_of_compose_gets_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(INSPECT, tmp_path, monkeypatch) == 0
    printed = capsys.readouterr().out
    compose = read(COMPOSE)
    stack = merged(compose, yaml.safe_load(printed))["services"]
    for name, service in compose["services"].items():
        built = "build" in service
        tag = "python:3.11-slim-bookworm" if built else service["image"]
        pinned = f"{tag}@sha256:{hashlib.sha256(tag.encode()).hexdigest()}"
        assert pinned == (
            stack[name]["build"]["args"]["PYTHON_IMAGE"] if built else stack[name]["image"]
        )
    assert f"set image redis=redis@{stack['redis']['image'].partition('@')[2]}\n" in printed


@pytest.mark.parametrize("docker", ["#!/bin/sh\necho no route >&2; exit 1\n", "#!/bin/sh\n"])
def test_without_a_registry_nothing_is_printed(
    docker: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_with(docker, tmp_path, monkeypatch) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "imagetools inspect redis:" in printed.err
    assert "check that its registry answers" in printed.err
