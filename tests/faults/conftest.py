"""Fixtures of the fault tests: a disposable stack, and jobs whose results are tallied."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from piqueue import Client, Job
from scripts.faults.fault_injectors import POISON_PATH, redis_of
from scripts.faults.observer import Observer
from scripts.faults.pictures import PictureServer
from scripts.faults.tally import Sent, Tally, tally_job
from scripts.local.stack import Stack
from tests.scripts.processes import eventually
from worker.jobs.errors import LedgerUnavailable
from worker.jobs.ledger.workers import Workers

LEASE_S = 6
ENV = {
    "PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32",
    "PIQUEUE_CHUNK_ITEMS": "8",
    # Chunks that a kill interrupted are tried again after this. A worker of a machine that stalls
    # for some seconds must keep its leases.
    "PIQUEUE_LEASE_S": str(LEASE_S),
    "PYTHONPATH": str(POISON_PATH),
}
WORKERS = 2
# From a fault to normal progress; the second where the process was asked to end.
BOUND_S = 90
TERMINATION_BOUND_S = 15
# A picture that takes this long leaves a fault some seconds between the first 100 pictures of 400
# and the last, although the observer may learn of the first ones late.
SLOW_S = 0.4


@dataclass
class Trial:
    """An observed job for faults; `tally` waits until it is done."""

    job: Job
    observer: Observer
    tally: Callable[[], Tally]
    pictures: PictureServer


RunTrial = Callable[..., AbstractContextManager[Trial]]


@pytest.fixture(scope="session")
def fault_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack for faults, with two workers and short leases."""
    with Stack(tmp_path_factory.mktemp("faults"), workers=WORKERS, env=ENV) as running:
        yield running


@pytest.fixture
def fault_client(fault_stack: Stack) -> Iterator[Client]:
    """Give a client of that stack, once all its processes have started."""
    with Client(fault_stack.url, timeout_s=10) as client:
        assert eventually(lambda: is_complete(fault_stack, client), 60)
        yield client


@pytest.fixture
def run_trial(fault_stack: Stack, fault_client: Client) -> RunTrial:
    """Give a function that submits a job of a number of pictures."""
    return partial(trial, fault_stack, fault_client)


def is_complete(stack: Stack, client: Client) -> bool:
    """Whether the API is ready and every worker has started, those that were just killed too."""
    pids = stack.workers
    if len(pids) < WORKERS or not client.ready():
        return False
    try:
        with redis_of(stack) as redis:
            live = Workers(redis).live()
    except LedgerUnavailable:
        return False
    # A worker's id is its host, its process id and a random part.
    return {int(worker_id.split("-")[-2]) for worker_id in live} >= set(pids)


@contextmanager
def trial(
    stack: Stack,
    client: Client,
    count: int,
    *,
    delay_s: float = 0.05,
    poisoned: frozenset[int] = frozenset(),
) -> Iterator[Trial]:
    """Run a trial with a job of `count` pictures, once all processes of the stack have started."""
    assert eventually(lambda: is_complete(stack, client), 60)
    with PictureServer(delay_s, poisoned) as pictures:
        sent = [Sent(pictures.url(index), pictures.sha256(index)) for index in range(count)]
        job = client.submit_urls(item.url for item in sent)
        with Observer(stack.url, job.id) as observer:
            yield Trial(
                job, observer, lambda: tally_job(client, observer.wait_done(), sent), pictures
            )
