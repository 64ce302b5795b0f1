"""Messages are lost, or delivered three times, and sweeps run side by side: nothing comes of it."""

import threading

from redis import Redis

from scripts.faults.injectors import lose_messages, triple_messages
from scripts.local.stack import Stack
from tests.faults.conftest import BOUND_S, Trying
from tests.worker.jobs.ledger.test_store import claim, submit
from worker.jobs.ledger.store import JobStore
from worker.jobs.queue import Notifier, make_celery
from worker.jobs.settings import load_settings
from worker.upkeep.recovery import sweep


def test_a_lost_message_costs_time_and_no_item(hurt_stack: Stack, trying: Trying) -> None:
    with trying(400) as trial:
        count = 0
        for finished in (50, 150, 250):
            trial.watch.until(finished)
            count += lose_messages(hurt_stack)
        assert count > 0, "no message waited when it was looked"
        found = trial.account()
        assert trial.watch.longest_stall_s() < BOUND_S
    assert found.balanced, found
    assert not found.rejected


def test_a_message_delivered_three_times_counts_once(hurt_stack: Stack, trying: Trying) -> None:
    with trying(400) as trial:
        count = 0
        for finished in (50, 150, 250):
            trial.watch.until(finished)
            count += triple_messages(hurt_stack)
        assert count > 0, "no message waited when it was looked"
        found = trial.account()
    assert found.balanced, found
    assert not found.rejected
    assert trial.pictures.served == 400, "a picture was fetched again"


def test_two_sweeps_at_once_ring_once(redis_client: Redis, redis_url: str) -> None:
    store = JobStore(redis_client)
    job_id, ring = submit(store, total=40)
    for chunk in ring:
        claim(store, job_id, chunk)
        redis_client.zadd(f"piqueue:{{{job_id}}}:lease", {str(chunk): 1})
    bell = Notifier(make_celery(load_settings(redis_url=redis_url)))
    together = threading.Barrier(8)

    def one() -> None:
        together.wait()
        sweep(store, bell)

    sweeps = [threading.Thread(target=one) for _ in range(together.parties)]
    for thread in sweeps:
        thread.start()
    for thread in sweeps:
        thread.join()
    assert redis_client.llen("piqueue:bulk") == len(ring)
    assert all(store.claim(job_id, chunk, 30) for chunk in ring)
