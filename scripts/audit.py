"""Looks up known vulnerabilities of the pinned dependencies; fails only if it finds one."""

import json
import subprocess
import sys
from pathlib import Path

import httpx2
from pip._internal.models.index import PyPI

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = (ROOT / "constraints.txt", ROOT / "constraints-gpu.txt")
# What pip-audit reads for each pinned version; mirrors of PyPI often do not have it.
PROBE_URL, PROBE_TIMEOUT_S = f"{PyPI.url}pypi/pip/25.0/json", 3
DEADLINE_S = 120  # one request for each pinned version
COMMAND = (
    *(sys.executable, "-m", "pip_audit"),
    *(word for path in CONSTRAINTS for word in ("--requirement", str(path))),
    *("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"),
    *("--timeout", "5"),
)


def main() -> int:
    """Audit; 1 if a pinned version is vulnerable, 0 if none is or no advisory can be read."""
    try:
        httpx2.get(PROBE_URL, timeout=PROBE_TIMEOUT_S).raise_for_status()
        answer = subprocess.run(COMMAND, capture_output=True, text=True, timeout=DEADLINE_S)
        dependencies = json.loads(answer.stdout)["dependencies"]
    except (httpx2.HTTPError, subprocess.TimeoutExpired, ValueError) as error:
        return _not_audited(type(error).__name__)
    known = [found for found in dependencies if "skip_reason" not in found]
    vulnerable = [found for found in known if found["vulns"]]
    for found in vulnerable:
        for flaw in found["vulns"]:
            versions = ", ".join(flaw["fix_versions"]) or "none yet"
            print(f"{found['name']} {found['version']}: {flaw['id']}, fixed in {versions}")
    if vulnerable:
        print(f"{len(vulnerable)} pinned versions are vulnerable: raise them", file=sys.stderr)
        return 1
    if len(known) < len(dependencies):
        return _not_audited(f"{len(dependencies) - len(known)} of {len(dependencies)} are unknown")
    print(f"{len(known)} pinned versions, none with a known vulnerability")
    return 0


def read_pins() -> list[str]:
    """Read the pinned versions that are audited, each as `name==version`."""
    lines = [line for path in CONSTRAINTS for line in path.read_text().splitlines()]
    return [line for line in lines if not line.startswith("#")]


def _not_audited(reason: str) -> int:
    line = "!" * 72
    print(
        f"{line}\nNOT AUDITED: this machine cannot read the advisories of PyPI ({reason}).\n"
        f"Run `python -m scripts.audit` on one that can, before a release.\n{line}",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
