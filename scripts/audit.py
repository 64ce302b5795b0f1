"""Looks up known vulnerabilities of the pinned dependencies; fails only when it finds one."""

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
DEADLINE_S = 15
_COMMAND = (
    *(sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS)),
    *("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"),
    *("--timeout", "5"),
)


def main() -> int:
    """Audit; 1 when a pinned version is vulnerable, 0 when none is or nothing could be learnt."""
    try:
        answer = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=DEADLINE_S)
        dependencies = json.loads(answer.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError) as error:
        return _not_audited(f"no answer: {type(error).__name__}")
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


def _not_audited(reason: str) -> int:
    line = "!" * 72
    print(
        f"{line}\nNOT AUDITED: the advisories of PyPI cannot be read from here ({reason}).\n"
        f"Run `python -m scripts.audit` where they can, before a release.\n{line}",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
