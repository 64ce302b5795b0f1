"""The primary of a Redis with Sentinels is killed in the middle of a job; the job continues."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from piqueue import Client
from scripts.faults.observer import Observer
from scripts.faults.pictures import PictureServer
from scripts.faults.tally import Sent, tally_job
from scripts.local.stack import ROOT
from scripts.local.supervised_process import SupervisedProcess
from tests.faults.conftest import ENV
from tests.redis_servers import RedisServer
from tests.scripts.processes import eventually

PASSWORD, SENTINEL_PASSWORD = "primary-pass", "sentinel-pass"
DOWN_AFTER_MS = 1000
# Sentinel decides after DOWN_AFTER_MS and elects; leases of a chunk that was lost run 4 s here.
BOUND_S = 30
COUNT = 400


class Service:
    """A primary, a replica and three Sentinels that watch them."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        common = {"requirepass": PASSWORD, "masterauth": PASSWORD}
        self.primary = RedisServer(folder / "one", common)
        of = {"replicaof": f"127.0.0.1 {self.primary.port}"}
        self.replica = RedisServer(folder / "two", {**common, **of})
        sentinels = [
            RedisServer(
                folder / f"sentinel-{number}",
                {
                    "requirepass": SENTINEL_PASSWORD,
                    "sentinel monitor main": f"127.0.0.1 {self.primary.port} 2",
                    "sentinel auth-pass main": PASSWORD,
                    "sentinel down-after-milliseconds main": str(DOWN_AFTER_MS),
                    "sentinel failover-timeout main": "10000",
                },
                sentinel=True,
            )
            for number in range(3)
        ]
        self.url = (
            f"redis+sentinel://:{PASSWORD}@{','.join(f'127.0.0.1:{one.port}' for one in sentinels)}"
            f"/main/0?sentinel_password={SENTINEL_PASSWORD}"
        )
        for server in (self.primary, self.replica, *sentinels):
            running.callback(server.process.stop, grace_s=0)
            password = SENTINEL_PASSWORD if server in sentinels else PASSWORD
            server.start(login={"password": password})
        for sentinel in sentinels:
            with sentinel.client(password=SENTINEL_PASSWORD) as client:
                assert eventually(partial(knows_all, client), 30)


def knows_all(sentinel: Any) -> bool:
    """Whether a Sentinel knows the replica and the other Sentinels."""
    [state] = sentinel.sentinel_masters().values()
    return (state["num-slaves"], state["num-other-sentinels"]) == (1, 2)


@pytest.fixture
def piqueue_with_sentinel(tmp_path: Path) -> Iterator[tuple[Service, str]]:
    """Run an API and two workers with such a service; gives the URL of the API."""
    with ExitStack() as running:
        service = Service(tmp_path, running)
        port = RedisServer.free_port()
        env = {**ENV, "PIQUEUE_REDIS_URL": service.url}
        for name, arguments in {
            "api": ["-m", "api", "--port", str(port)],
            "worker-1": ["-m", "worker"],
            "worker-2": ["-m", "worker"],
        }.items():
            command = [sys.executable, *arguments]
            process = SupervisedProcess(command, tmp_path / f"{name}.log", env, ROOT)
            process.start()
            running.callback(process.stop, grace_s=5)
        yield service, f"http://127.0.0.1:{port}"


def is_replica(redis: Redis) -> bool:
    """Whether it follows a primary and has its data."""
    try:
        role, *_, state, _ = redis.role()
    except RedisConnectionError:  # it resets connections when it becomes a replica
        return False
    return (role, state) == (b"slave", b"connected")


def test_a_job_survives_a_failover_to_a_replica(
    piqueue_with_sentinel: tuple[Service, str],
) -> None:
    service, url = piqueue_with_sentinel
    with Client(url, timeout_s=10) as client, PictureServer(0.05) as pictures:
        assert eventually(client.ready, 60)
        sent = [Sent(pictures.url(index), pictures.sha256(index)) for index in range(COUNT)]
        for killed, standby in (
            (service.primary, service.replica),
            (service.replica, service.primary),
        ):
            job = client.submit_urls(item.url for item in sent)
            with Observer(url, job.id) as observer:
                observer.wait_finished(100)
                assert killed.process.pid
                os.kill(killed.process.pid, signal.SIGKILL)
                killed.process.wait()
                assert observer.finished < COUNT, "the job was done before the fault"
                tally = tally_job(client, observer.wait_done(), sent)
                assert observer.longest_stall_s() < BOUND_S
            assert tally.balanced, tally
            assert not tally.rejected
            with standby.client(password=PASSWORD) as redis:
                assert redis.role()[0] == b"master"
            # The old primary comes back, and Sentinel makes it a replica that fails over next.
            killed.start(login={"password": PASSWORD})
            with killed.client(password=PASSWORD) as redis:
                assert eventually(lambda: is_replica(redis), 30)
