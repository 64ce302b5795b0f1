"""The audit fails for a vulnerable pin, and warns where it cannot read the advisories."""

import json
import subprocess
from typing import Any

import httpx2
import pytest

from scripts import audit


def answered(monkeypatch: pytest.MonkeyPatch, dependencies: list[dict[str, Any]]) -> int:
    """Give the exit code for an answer of pip-audit."""
    text = json.dumps({"dependencies": dependencies})
    done = subprocess.CompletedProcess((), 0, stdout=text)
    probed = httpx2.Response(200, request=httpx2.Request("GET", audit.PROBE_URL))
    monkeypatch.setattr(httpx2, "get", lambda *_, **__: probed)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    return audit.main()


def test_a_vulnerable_pin_fails_even_where_others_are_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flaw = {"id": "PYSEC-2026-1", "fix_versions": ["1.1"]}
    found: list[dict[str, Any]] = [
        {"name": "fine", "version": "2", "vulns": []},
        {"name": "bad", "version": "1", "vulns": [flaw]},
        {"name": "own", "skip_reason": "not found"},
    ]
    assert answered(monkeypatch, found) == 1
    assert "bad 1: PYSEC-2026-1, fixed in 1.1" in capsys.readouterr().out


def test_an_audit_without_advisories_warns_and_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answered(monkeypatch, [{"name": "own", "skip_reason": "not found"}]) == 0
    assert "NOT AUDITED" in capsys.readouterr().err


def test_pins_without_a_vulnerability_pass_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answered(monkeypatch, [{"name": "fine", "version": "2", "vulns": []}]) == 0
    assert capsys.readouterr().err == ""


def test_an_unreachable_service_is_reported_without_waiting_for_each_pin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise httpx2.ConnectError("no route")

    monkeypatch.setattr(httpx2, "get", refuse)
    monkeypatch.delattr(subprocess, "run")
    assert audit.main() == 0
    assert "NOT AUDITED" in capsys.readouterr().err


def test_every_pin_is_audited() -> None:
    pins = audit.read_pins()
    assert {pin.partition("==")[0] for pin in pins} > {"pillow", "nvidia-cublas-cu12"}
    command = (*audit.COMMAND, "--dry-run")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"would have audited {len(pins)} packages" in done.stderr
