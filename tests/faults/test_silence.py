"""A worker is frozen or cut off from Redis for longer than its leases; others do its chunks."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from piqueue import Client
from scripts.faults.fault_injectors import black_hole, worker_frozen
from scripts.faults.relay import RelayedStack
from tests.faults.conftest import BOUND_S, ENV, WORKERS, trial
from tests.scripts.processes import eventually

COUNT = 400
SILENCES = {"frozen": worker_frozen, "cut off": black_hole}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("relayed")


@pytest.fixture(scope="module")
def relayed_stack(folder: Path) -> Iterator[RelayedStack]:
    """Run a stack whose first worker reaches Redis through a relay."""
    with RelayedStack(folder, workers=WORKERS, env=ENV) as running:
        yield running


@pytest.mark.parametrize("silence", SILENCES.values(), ids=SILENCES)
def test_the_chunks_of_a_silent_worker_are_done_by_others_and_count_once(
    relayed_stack: RelayedStack,
    folder: Path,
    silence: Callable[[Any], AbstractContextManager[None]],
) -> None:
    with (
        Client(relayed_stack.url, timeout_s=10) as client,
        # A frozen worker may exit after 30 s, so the other one must be faster.
        trial(relayed_stack, client, COUNT, delay_s=0.2) as one,
    ):
        one.observer.wait_finished(50)
        log_path = folder / "worker-1.log"
        superseded = log_path.read_text().count("commit_superseded")
        with silence(relayed_stack):
            done = one.tally()
        assert one.observer.longest_stall_s() < BOUND_S
        assert eventually(
            lambda: log_path.read_text().count("commit_superseded") > superseded, 60
        ), "the worker held no chunk"
        assert one.tally() == done, "a late commit changed the job"
    assert done.balanced, done
    assert not done.rejected
