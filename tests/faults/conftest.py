"""What the fault tests share: a stack that may be hurt, pictures for it, and an audit."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from api.schemas import JobOut
from piqueue.client import Client
from scripts.faults.injectors import POISON_PATH
from scripts.faults.observer import Observer
from scripts.faults.pictures import PictureServer
from scripts.faults.tally import Account, Sent, account
from scripts.local.stack import Stack
from tests.scripts.processes import eventually

ENV = {
    "PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32",
    "PIQUEUE_CHUNK_ITEMS": "8",
    # What a kill cut off is tried again after this.
    "PIQUEUE_LEASE_S": "4",
    "PYTHONPATH": str(POISON_PATH),
}
WORKERS = 2
# From a fault to normal progress, and where the process could say goodbye.
BOUND_S = 90
GOODBYE_S = 15


@dataclass
class Trial:
    """A job that faults happen to, watched; `account` may be taken once it is done."""

    job: JobOut
    watch: Observer
    account: Callable[[], Account]
    pictures: PictureServer


Trying = Callable[..., AbstractContextManager[Trial]]


@pytest.fixture(scope="session")
def hurt_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack that may be hurt, with two workers and short leases."""
    with Stack(tmp_path_factory.mktemp("hurt"), workers=WORKERS, env=ENV) as running:
        yield running


@pytest.fixture
def hurt_client(hurt_stack: Stack) -> Iterator[Client]:
    """Give a client of that stack, once it is whole."""
    with Client(hurt_stack.url, timeout_s=10) as client:
        assert eventually(lambda: _is_whole(hurt_stack, client), 60)
        yield client


@pytest.fixture
def trying(hurt_stack: Stack, hurt_client: Client) -> Trying:
    """Give a function that submits a job of so many pictures."""
    return partial(_trial, hurt_stack, hurt_client)


def _is_whole(stack: Stack, client: Client) -> bool:
    return len(stack.workers) == WORKERS and client.ready()


@contextmanager
def _trial(
    stack: Stack,
    client: Client,
    count: int,
    *,
    delay_s: float = 0.05,
    poisoned: frozenset[int] = frozenset(),
) -> Iterator[Trial]:
    with PictureServer(delay_s, poisoned) as pictures:
        sent = [Sent(pictures.url(index), pictures.sha256(index)) for index in range(count)]
        job = client.submit_urls(item.url for item in sent)
        with Observer(stack.url, job.id) as watch:
            yield Trial(job, watch, lambda: account(client, watch.done(), sent), pictures)
