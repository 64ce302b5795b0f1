"""A supervised process and its supervisor, with real processes."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.local import supervisor as supervisor_module
from scripts.local.supervised_process import StartFailed, SupervisedProcess
from scripts.local.supervisor import Supervisor
from tests.scripts.processes import eventually, is_running


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "process.log"


@pytest.fixture
def sleeper(log_path: Path) -> Iterator[SupervisedProcess]:
    process = SupervisedProcess(["sleep", "300"], log_path)
    process.start()
    yield process
    process.stop(grace_s=0)


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace_period(log_path: Path) -> None:
    process = SupervisedProcess(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], log_path
    )
    process.start()
    assert eventually(lambda: "ready" in log_path.read_text())
    process.stop(grace_s=0.2)
    assert process.pid is None
    assert process.wait() == -signal.SIGKILL


def test_the_processes_that_it_started_are_killed_with_it(log_path: Path) -> None:
    process = SupervisedProcess(["sh", "-c", "sleep 300 & echo $!; wait"], log_path)
    process.start()
    assert eventually(lambda: log_path.read_text().endswith("\n"))
    grandchild = int(log_path.read_text())
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert eventually(lambda: not is_running(grandchild))


def test_the_log_contains_both_streams_of_every_start(log_path: Path) -> None:
    process = SupervisedProcess(["sh", "-c", "echo out; echo err >&2"], log_path)
    for _ in range(2):
        process.start()
        assert process.wait() == 0
    assert log_path.read_text() == "out\nerr\nout\nerr\n"
    assert process.log_tail().endswith("out\nerr\nout\nerr")


def test_wait_until_waits_for_printed_output(log_path: Path) -> None:
    process = SupervisedProcess(["sh", "-c", "sleep 0.1; echo 8000; exec sleep 300"], log_path)
    process.start()
    try:
        assert process.wait_until(lambda: log_path.read_text().strip(), 60, "it") == "8000"
    finally:
        process.stop(grace_s=0)


def test_a_process_that_ends_while_starting_is_reported_with_its_log(log_path: Path) -> None:
    process = SupervisedProcess(["sh", "-c", "echo no such port"], log_path)
    process.start()
    with pytest.raises(StartFailed, match="the server ended while starting") as failed:
        process.wait_until(lambda: False, 60, "the server")
    process.wait()
    assert str(failed.value).endswith("no such port")


def test_a_process_that_takes_too_long_to_start_is_reported(sleeper: SupervisedProcess) -> None:
    with pytest.raises(StartFailed, match="the server was not ready in 0 s"):
        sleeper.wait_until(lambda: False, 0.1, "the server")


def test_a_supervised_process_restarts_until_it_is_released(sleeper: SupervisedProcess) -> None:
    supervisor = Supervisor("sleeper", sleeper)
    first = sleeper.pid
    assert first
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: sleeper.pid not in (None, first))
    supervisor.stop(grace_s=5)
    assert sleeper.pid is None
    assert supervisor.exit_count == 1


def test_a_supervised_process_that_cannot_start_is_tried_again(
    sleeper: SupervisedProcess, tmp_path: Path
) -> None:
    supervisor = Supervisor("sleeper", sleeper)
    sleeper.command = [str(tmp_path / "not-there-yet")]
    sleeper.kill()
    assert eventually(lambda: supervisor.exit_count >= 2)
    sleeper.command = ["sleep", "300"]
    assert eventually(lambda: sleeper.pid is not None)
    supervisor.stop(grace_s=5)


def test_a_process_that_is_killed_again_and_again_while_it_works_restarts_at_once(
    sleeper: SupervisedProcess,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "_STARTED_S", 0.1)
    supervisor = Supervisor("sleeper", sleeper)
    for kills in range(1, 7):
        pid = sleeper.pid
        assert pid
        time.sleep(0.15)
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda pid=pid: sleeper.pid not in (None, pid))  # type: ignore[misc]
        assert supervisor.exit_count == kills
    supervisor.stop(grace_s=5)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["sleeper ended with exit code -9, restarting it at once"] * 6


def test_a_process_that_ends_at_its_start_waits_longer_each_time_up_to_a_limit(
    log_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_LONGEST_PAUSE_S", 0.5)
    # On a machine that stalls, even `false` may run for seconds.
    monkeypatch.setattr(supervisor_module, "_STARTED_S", 3600)
    process = SupervisedProcess(["false"], log_path)
    process.start()
    supervisor = Supervisor("false", process)
    assert eventually(lambda: supervisor.exit_count >= 4)
    supervisor.stop(grace_s=5)
    pauses = [line.rpartition(" in ")[2] for line in capsys.readouterr().err.splitlines()]
    assert pauses[:4] == ["0.2 s", "0.4 s", "0.5 s", "0.5 s"]
    assert set(pauses[4:]) <= {"0.5 s"}
