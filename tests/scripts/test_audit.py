"""The audit fails for a vulnerable pin, and says so loudly where it cannot look."""

import json
import subprocess
from typing import Any

import pytest

from scripts import audit


def answered(monkeypatch: pytest.MonkeyPatch, dependencies: list[dict[str, Any]]) -> int:
    """Give the exit code for an answer of pip-audit."""
    text = json.dumps({"dependencies": dependencies})
    done = subprocess.CompletedProcess((), 0, stdout=text)
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


def test_an_audit_that_learnt_nothing_is_loud_and_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answered(monkeypatch, [{"name": "own", "skip_reason": "not found"}]) == 0
    assert "NOT AUDITED" in capsys.readouterr().err


def test_pins_without_a_flaw_pass_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answered(monkeypatch, [{"name": "fine", "version": "2", "vulns": []}]) == 0
    assert capsys.readouterr().err == ""
