"""A child process and its keeper, with real processes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.local.supervised_process import StartFailed, SupervisedProcess
from scripts.local.supervisor import Supervisor
from tests.scripts.processes import eventually, is_running


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


@pytest.fixture
def sleeper(log_path: Path) -> Iterator[SupervisedProcess]:
    child = SupervisedProcess(["sleep", "300"], log_path)
    child.start()
    yield child
    child.stop(grace_s=0)


def test_a_child_that_ignores_the_request_to_end_is_ended_after_its_grace(log_path: Path) -> None:
    child = SupervisedProcess(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], log_path
    )
    child.start()
    assert eventually(lambda: "ready" in log_path.read_text())
    child.stop(grace_s=0.2)
    assert child.pid is None
    assert child.wait() == -signal.SIGKILL


def test_what_a_child_started_is_ended_with_it(log_path: Path) -> None:
    child = SupervisedProcess(["sh", "-c", "sleep 300 & echo $!; wait"], log_path)
    child.start()
    assert eventually(lambda: log_path.read_text().endswith("\n"))
    grandchild = int(log_path.read_text())
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert eventually(lambda: not is_running(grandchild))


def test_the_log_keeps_both_streams_of_every_start(log_path: Path) -> None:
    child = SupervisedProcess(["sh", "-c", "echo out; echo err >&2"], log_path)
    for _ in range(2):
        child.start()
        assert child.wait() == 0
    assert log_path.read_text() == "out\nerr\nout\nerr\n"
    assert child.log_tail().endswith("out\nerr\nout\nerr")


def test_what_a_starting_child_prints_is_waited_for(log_path: Path) -> None:
    child = SupervisedProcess(["sh", "-c", "sleep 0.1; echo 8000; exec sleep 300"], log_path)
    child.start()
    try:
        assert child.wait_until(lambda: log_path.read_text().strip(), 60, "it") == "8000"
    finally:
        child.stop(grace_s=0)


def test_a_child_that_ends_while_it_starts_is_told_with_its_log(log_path: Path) -> None:
    child = SupervisedProcess(["sh", "-c", "echo no such port"], log_path)
    child.start()
    with pytest.raises(StartFailed, match="the server ended while starting") as failed:
        child.wait_until(lambda: False, 60, "the server")
    child.wait()
    assert str(failed.value).endswith("no such port")


def test_a_child_that_takes_too_long_to_start_is_given_up(sleeper: SupervisedProcess) -> None:
    with pytest.raises(StartFailed, match="the server was not ready in 0 s"):
        sleeper.wait_until(lambda: False, 0.1, "the server")


def test_a_kept_child_starts_again_until_it_is_released(sleeper: SupervisedProcess) -> None:
    keeper = Supervisor("sleeper", sleeper.wait, sleeper.start)
    first = sleeper.pid
    assert first
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: sleeper.pid not in (None, first))
    keeper.release()
    sleeper.stop(grace_s=5)
    keeper.join()
    assert sleeper.pid is None
    assert keeper.ended_count == 1


def test_a_kept_child_that_cannot_start_is_tried_again(
    sleeper: SupervisedProcess, tmp_path: Path
) -> None:
    keeper = Supervisor("sleeper", sleeper.wait, sleeper.start)
    sleeper.command = [str(tmp_path / "not-there-yet")]
    sleeper.kill()
    assert eventually(lambda: keeper.ended_count == 2)
    sleeper.command = ["sleep", "300"]
    assert eventually(lambda: sleeper.pid is not None)
    keeper.release()
    sleeper.stop(grace_s=5)
    keeper.join()
