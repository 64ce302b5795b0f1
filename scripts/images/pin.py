"""Prints a Compose file that names every image by its tag and its digest in the registry.

Needs Docker with buildx, and the registries.
"""

import argparse
import re
import subprocess
import sys
from typing import Any

import yaml

from scripts.local.stack import ROOT

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BASE = re.compile(r"^ARG PYTHON_IMAGE=(\S+)$", re.MULTILINE)


class PinFailed(Exception):
    """The digest of an image is not known; the text says why."""


def main() -> int:
    """Print the file, and give the exit code."""
    argparse.ArgumentParser(prog="scripts/pin_images", description=__doc__).parse_args()
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    try:
        pinned = {name: _pinned_service(service) for name, service in services.items()}
    except PinFailed as error:
        print(f"scripts/pin_images: {error}", file=sys.stderr)
        return 1
    digest = pinned["redis"]["image"].partition("@")[2]
    print("# Written by scripts/pin_images. Add it to COMPOSE_FILE in .env.")
    print("# For Kubernetes, run in deploy/kubernetes/base:")
    print(f"#   kustomize edit set image redis=redis@{digest}")
    print(yaml.safe_dump({"services": pinned}, sort_keys=False), end="")
    return 0


def _pinned_service(service: dict[str, Any]) -> dict[str, Any]:
    if "build" not in service:
        return {"image": _pinned(service["image"])}
    (base,) = _BASE.findall((ROOT / service["build"]["dockerfile"]).read_text())
    return {"build": {"args": {"PYTHON_IMAGE": _pinned(base)}}}


def _pinned(image: str) -> str:
    command = ["docker", "buildx", "imagetools", "inspect", image]
    try:
        done = subprocess.run(
            [*command, "--format", "{{.Manifest.Digest}}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PinFailed(f"`{' '.join(command)}` does not run ({error}): install Docker") from None
    digest = done.stdout.strip()
    if done.returncode or not _DIGEST.fullmatch(digest):
        said = (done.stderr.strip() or digest or "nothing")[-300:]
        raise PinFailed(f"`{' '.join(command)}` says: {said}; check that its registry answers")
    return f"{image}@{digest}"


if __name__ == "__main__":
    sys.exit(main())
