"""The connection to a Redis that hangs."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.scripts.processes import eventually
from worker.jobs.errors import LedgerUnavailable
from worker.jobs.ledger.connection import connect, ledger_errors
from worker.jobs.ledger.store import JobStore


@pytest.fixture
def silent() -> Iterator[tuple[str, list[socket.socket]]]:
    """Give a server that takes connections, which are listed, and answers nothing."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                connection, _ = server.accept()
                if ended.is_set():
                    connection.close()
                    return
                connections.append(connection)

        ended = threading.Event()
        thread = threading.Thread(target=accept)
        thread.start()
        host, port = server.getsockname()
        yield f"redis://{host}:{port}/0", connections
        ended.set()
        socket.create_connection((host, port)).close()
        thread.join()
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(("retry_silence", "least", "most"), [(False, 1, 1), (True, 2, 9)])
def test_a_command_to_a_redis_that_hangs_is_retried_only_on_request(
    silent: tuple[str, list[socket.socket]], retry_silence: bool, least: int, most: int
) -> None:
    url, connections = silent
    client = connect(url, timeout_s=0.2, retries=2, retry_silence=retry_silence)
    with client, pytest.raises(LedgerUnavailable, match="TimeoutError"), ledger_errors():
        client.ping()
    # The thread of the server may accept the last one late.
    assert eventually(lambda: len(connections) >= least)
    assert len(connections) <= most


def test_methods_and_generators_of_a_redis_client_raise_ledger_unavailable() -> None:
    with connect("unix:///nowhere/redis.sock", retries=0) as client:
        store = JobStore(client)
        with pytest.raises(LedgerUnavailable):
            store.job("job_a")
        with pytest.raises(LedgerUnavailable):
            next(store.jobs("alice"))
