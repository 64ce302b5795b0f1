"""The webhook outbox on a real Redis: what is due, who may deliver it, and the log of attempts."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from tests.worker.jobs.ledger.test_store import MODEL, REJECTED, claim, scored
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.store import JobStore
from worker.jobs.record import Lane, new_job_id
from worker.jobs.webhooks.outbox import Attempt, Delivery, HookState, Outbox
from worker.jobs.webhooks.payload import job_finished, webhook_id
from worker.jobs.webhooks.secrets import OVERLAP_S, WebhookSecrets

OK = Attempt(at_ms=1, took_ms=2, status=200)
DOWN = Attempt(at_ms=1, took_ms=2, status=500)


@pytest.fixture
def store(redis_client: Redis) -> JobStore:
    return JobStore(redis_client)


@pytest.fixture
def outbox(redis_client: Redis) -> Outbox:
    return Outbox(redis_client)


def submit(store: JobStore, url: str | None = "http://h/?token=x", items: int = 1) -> str:
    job = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600, webhook_url=url)
    store.put_chunk(job.id, 0, [ItemSpec(f"{at}", "http://h/") for at in range(items)])
    store.submit(job, Shape(Lane.BULK, items, items))
    return job.id


def finish(store: JobStore, job_id: str) -> None:
    taken = claim(store, job_id, 0)
    store.commit(taken, scored(taken))


def finished(store: JobStore) -> str:
    job_id = submit(store)
    finish(store, job_id)
    return job_id


def take(outbox: Outbox, job_id: str, lease_s: float = 30) -> Delivery:
    delivery = outbox.claim(job_id, lease_s)
    assert delivery is not None
    return delivery


def test_a_webhook_is_due_the_moment_its_job_is_done(store: JobStore, outbox: Outbox) -> None:
    job_id = submit(store)
    assert outbox.due(10) == []
    assert outbox.claim(job_id, 30) is None
    assert outbox.record(store.job(job_id)).state is HookState.WAITING
    finish(store, job_id)
    assert outbox.due(10) == [job_id]
    assert outbox.record(store.job(job_id)).state is HookState.PENDING


def test_a_job_without_a_webhook_is_never_due(store: JobStore, outbox: Outbox) -> None:
    finish(store, submit(store, url=None))
    assert outbox.due(10) == []


def test_a_webhook_is_due_for_every_final_status(store: JobStore, outbox: Outbox) -> None:
    failed, cancelled, drafted = submit(store), submit(store), new_job_id()
    taken = claim(store, failed, 0)
    store.commit(taken, [REJECTED])
    store.cancel(cancelled)
    store.open_draft(NewJob(drafted, "anyone", MODEL, 3600, webhook_url="http://h/"))
    store.cancel(drafted)
    assert set(outbox.due(10)) == {failed, cancelled, drafted}


def test_only_one_of_many_workers_may_deliver(
    redis_client: Redis, store: JobStore, outbox: Outbox
) -> None:
    job_id = finished(store)
    with ThreadPoolExecutor(8) as workers:
        claims = list(workers.map(lambda _: Outbox(redis_client).claim(job_id, 30), range(32)))
    assert len([delivery for delivery in claims if delivery]) == 1
    assert outbox.due(10) == []


def test_a_delivery_whose_worker_died_is_due_again(store: JobStore, outbox: Outbox) -> None:
    job_id = finished(store)
    dead = take(outbox, job_id, lease_s=0.001)
    while outbox.due(10) != [job_id]:
        pass
    second = take(outbox, job_id)
    outbox.settle(dead, DOWN, HookState.GIVEN_UP)
    record = outbox.record(store.job(job_id))
    assert record.state is HookState.PENDING, "a lost lease decides nothing"
    assert record.log == (DOWN,), "but what it saw is kept"
    outbox.settle(second, OK, HookState.DELIVERED)
    assert outbox.record(store.job(job_id)).state is HookState.DELIVERED


def test_a_failed_attempt_is_counted_and_due_after_its_delay(
    store: JobStore, outbox: Outbox
) -> None:
    job_id = finished(store)
    first = take(outbox, job_id)
    assert first.attempts == 0
    outbox.settle(first, DOWN, HookState.PENDING, delay_s=3600)
    assert outbox.due(10) == []
    assert outbox.claim(job_id, 30) is None
    next_ms = outbox.record(store.job(job_id)).next_ms
    assert next_ms is not None
    assert 3590 < next_ms / 1000 - datetime.now(UTC).timestamp() < 3610

    job_id = finished(store)
    outbox.settle(take(outbox, job_id), DOWN, HookState.PENDING, delay_s=0)
    assert take(outbox, job_id).attempts == 1


def test_a_deferred_delivery_is_not_an_attempt(store: JobStore, outbox: Outbox) -> None:
    job_id = finished(store)
    outbox.defer(take(outbox, job_id), 0)
    delivery = take(outbox, job_id)
    assert delivery.attempts == 0
    outbox.defer(delivery, 3600)
    assert outbox.due(10) == []
    assert outbox.record(store.job(job_id)).log == ()


def test_a_delivered_webhook_is_due_again_only_when_replayed(
    store: JobStore, outbox: Outbox
) -> None:
    job_id = finished(store)
    outbox.settle(take(outbox, job_id), DOWN, HookState.PENDING)
    outbox.settle(take(outbox, job_id), OK, HookState.DELIVERED)
    assert outbox.due(10) == []
    assert outbox.record(store.job(job_id)).next_ms is None
    outbox.replay(job_id)
    record = outbox.record(store.job(job_id))
    assert (record.state, record.log) == (HookState.PENDING, (OK, DOWN))
    assert take(outbox, job_id).attempts == 0


def test_the_longest_due_delivery_comes_first(store: JobStore, outbox: Outbox) -> None:
    jobs = [finished(store) for _ in range(5)]
    for position, job_id in enumerate(jobs, start=1):
        overdue_s = 10 * position
        outbox.settle(take(outbox, job_id), DOWN, HookState.PENDING, delay_s=-overdue_s)
    assert outbox.due(10) == jobs[::-1]
    assert outbox.due(2) == jobs[:2:-1]


def test_the_log_keeps_the_latest_attempts(store: JobStore, outbox: Outbox) -> None:
    job_id = finished(store)
    for number in range(25):
        outbox.settle(take(outbox, job_id), Attempt(number, 1, None, "x"), HookState.PENDING)
    log = outbox.record(store.job(job_id)).log
    assert [attempt.at_ms for attempt in log] == list(range(24, 4, -1))


def test_a_job_that_is_erased_leaves_nothing_in_the_outbox(
    redis_client: Redis, store: JobStore, outbox: Outbox
) -> None:
    job_id = finished(store)
    outbox.settle(take(outbox, job_id), DOWN, HookState.PENDING)
    assert len(redis_client.keys(f"piqueue:{{{job_id}}}:webhook*")) == 2
    delivery = take(outbox, job_id)
    store.erase(job_id)
    outbox.settle(delivery, DOWN, HookState.PENDING)
    assert redis_client.zcard("piqueue:hooks") == 0
    assert redis_client.keys(f"piqueue:{{{job_id}}}:*") == []


def test_a_job_that_is_erased_before_a_replay_leaves_the_outbox(
    redis_client: Redis, store: JobStore, outbox: Outbox
) -> None:
    job_id = finished(store)
    store.erase(job_id)
    outbox.replay(job_id)
    assert outbox.claim(job_id, 30) is None
    assert redis_client.zcard("piqueue:hooks") == 0


def test_the_event_of_a_job_has_its_fields_and_always_the_same_bytes(store: JobStore) -> None:
    job = store.job(finished(store))
    event = job_finished(job)
    assert job_finished(store.job(job.id)) == event
    body = json.loads(event)
    assert (body["type"], body["data"]["id"]) == ("job.finished", job.id)
    assert body["timestamp"] == body["data"]["finished_at"]
    assert body["data"]["counts"]["succeeded"] == body["data"]["counts"]["total"] == 1
    assert b"token" not in event, "the webhook's own URL is nobody else's business"
    assert webhook_id(job.id) == "msg_" + job.id.removeprefix("job_")
    assert "token" not in repr(job)


def test_a_secret_is_created_once_at_its_first_use(redis_client: Redis) -> None:
    with ThreadPoolExecutor(8) as callers:
        secrets = list(callers.map(lambda _: WebhookSecrets(redis_client).get("me"), range(32)))
    assert len({secret.current for secret in secrets}) == 1
    assert secrets[0].current.startswith("whsec_")
    assert secrets[0].previous is None
    assert WebhookSecrets(redis_client).get("you").current != secrets[0].current
    assert secrets[0].current not in repr(secrets[0])


def test_a_rotated_secret_stays_valid_for_a_day(redis_client: Redis) -> None:
    secrets = WebhookSecrets(redis_client)
    first = secrets.get("me").current
    second = secrets.rotate("me")
    assert second.current != first
    assert second.previous == first
    assert second.previous_until is not None
    left = second.previous_until - datetime.now(UTC)
    assert timedelta(seconds=OVERLAP_S - 60) < left <= timedelta(seconds=OVERLAP_S)
    third = secrets.rotate("me")
    assert (third.previous, secrets.get("me").current) == (second.current, third.current)


def test_a_secret_rotated_before_its_first_use_is_just_created(redis_client: Redis) -> None:
    assert WebhookSecrets(redis_client).rotate("me").previous is None
