"""Recovery on a real Redis: after which time a message counts as lost."""

import pytest
from redis import Redis

from tests.worker.jobs.ledger.test_store import submit
from worker.jobs.ledger.store import JobStore
from worker.jobs.queue import Notifier, make_celery
from worker.jobs.settings import load_settings
from worker.upkeep.recovery import recover_stalled_work


@pytest.mark.parametrize(
    ("queued", "age_s", "notified"),
    [(0, 4, 0), (0, 6, 4), (1, 6, 0), (1, 31, 4), (1000, 3600, 0)],
)
def test_a_message_counts_as_lost_sooner_where_the_queue_is_empty(
    redis_client: Redis, redis_url: str, queued: int, age_s: int, notified: int
) -> None:
    store = JobStore(redis_client)
    job_id, chunks = submit(store, total=40)
    for chunk in chunks:
        redis_client.zincrby(f"piqueue:{{{job_id}}}:notified", -1000 * age_s, chunk)
    if queued:
        redis_client.rpush("piqueue:interactive", *["message"] * queued)
    recover_stalled_work(store, Notifier(make_celery(load_settings(redis_url=redis_url))))
    assert redis_client.llen("piqueue:bulk") == notified
