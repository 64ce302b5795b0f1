"""Lost and repeated messages, and concurrent recovery runs, cost no item."""

import threading

from redis import Redis

from scripts.faults.fault_injectors import lose_messages, triple_messages
from scripts.local.stack import Stack
from tests.faults.conftest import BOUND_S, SLOW_S, RunTrial
from tests.worker.jobs.ledger.test_store import claim, submit
from worker.jobs.ledger.store import JobStore
from worker.upkeep.recovery import recover_stalled_work


def test_a_lost_message_costs_time_and_no_item(fault_stack: Stack, run_trial: RunTrial) -> None:
    with run_trial(400, delay_s=SLOW_S) as trial:
        count = 0
        for finished in (50, 150, 250):
            trial.observer.wait_finished(finished)
            count += lose_messages(fault_stack)
        assert count > 0, "the queues were empty at each injection"
        tally = trial.tally()
        assert trial.observer.longest_stall_s() < BOUND_S
    assert tally.balanced, tally
    assert not tally.rejected


def test_a_message_delivered_three_times_counts_once(
    fault_stack: Stack, run_trial: RunTrial
) -> None:
    with run_trial(400, delay_s=SLOW_S) as trial:
        count = 0
        for finished in (50, 150, 250):
            trial.observer.wait_finished(finished)
            count += triple_messages(fault_stack)
        assert count > 0, "the queues were empty at each injection"
        tally = trial.tally()
    assert tally.balanced, tally
    assert not tally.rejected
    assert trial.pictures.request_count == 400, "a picture was fetched again"


def test_concurrent_recovery_runs_return_each_chunk_once(redis_client: Redis) -> None:
    store = JobStore(redis_client)
    job_id, chunks = submit(store, total=40)
    for chunk in chunks:
        claim(store, job_id, chunk)
        redis_client.zadd("piqueue:due", {f"lease {job_id} {chunk} 10 1": 1})
    together = threading.Barrier(8)

    def one() -> None:
        together.wait()
        recover_stalled_work(store)

    recoveries = [threading.Thread(target=one) for _ in range(together.parties)]
    for thread in recoveries:
        thread.start()
    for thread in recoveries:
        thread.join()
    again = [one for _ in chunks for one in store.claim_next(30, bulk_share=0.2)]
    assert [(one.chunk_index, one.attempt) for one in again] == [(at, 2) for at in chunks]
    assert not store.claim_next(30, bulk_share=0.2)
