"""The primary of a Redis with Sentinels is killed in the middle of a job; the job continues."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from piqueue import Client
from scripts.doctor.check_result import Level
from scripts.doctor.redis import check_redis
from scripts.faults.sentinel import PASSWORD, SentinelStack
from tests.faults.conftest import BOUND_S, ENV, SLOW_S, WORKERS, trial
from tests.redis_servers import require_redis_servers
from worker.jobs.settings import Settings

COUNT = 400
# A machine that stands still for three seconds is no reason for a failover.
DOWN_AFTER_MS = 5000


@pytest.fixture
def sentinel_stack(tmp_path: Path) -> Iterator[SentinelStack]:
    """Run an API and two workers with a primary, a replica and three Sentinels.

    Sentinel decides after DOWN_AFTER_MS and elects; a vote that no one wins is repeated after 20 s.
    """
    require_redis_servers()
    with SentinelStack(tmp_path, DOWN_AFTER_MS, workers=WORKERS, env=ENV) as stack:
        yield stack


def test_a_job_survives_a_failover_to_a_replica(sentinel_stack: SentinelStack) -> None:
    service = sentinel_stack.service
    checks = {one.check: one for one in check_redis(Settings(redis_url=service.url))}
    assert checks["redis"].level is checks["redis persistence"].level is Level.OK
    assert checks["redis replicas"].level is Level.WARNING, "min-replicas-to-write is not set"
    with Client(sentinel_stack.url, timeout_s=10) as client:
        # The old primary comes back as a replica, which fails over next.
        for _ in range(2):
            with trial(sentinel_stack, client, COUNT, delay_s=SLOW_S) as one:
                one.observer.wait_finished(100)
                service.kill_primary()
                assert one.observer.finished < COUNT, "the job was done before the fault"
                tally = one.tally()
                assert one.observer.longest_stall_s() < BOUND_S
            assert tally.balanced, tally
            assert not tally.rejected
            with service.primary.client(password=PASSWORD) as redis:
                assert redis.role()[0] == b"master"
            service.rejoin()
