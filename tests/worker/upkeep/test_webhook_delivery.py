"""The sender of webhooks with a real Redis and real receivers: fair to all hosts, with retries."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest
from aiohttp import web
from redis import Redis

from tests.worker.fetching.hostile_answers import HostileHosts, hostile_answers
from tests.worker.fetching.site import Site
from tests.worker.jobs.ledger.test_store import MODEL
from worker.fetching.host_slots import MAX_WAIT_S, HostSlots
from worker.fetching.session import open_session
from worker.jobs.ledger.layout import NewJob
from worker.jobs.ledger.reader import JobReader
from worker.jobs.ledger.store import JobStore
from worker.jobs.record import new_job_id
from worker.jobs.settings import load_settings
from worker.jobs.webhooks.outbox import Attempt, HookState, Outbox
from worker.jobs.webhooks.secrets import WebhookSecrets
from worker.scoring.metrics import WorkerMetrics
from worker.upkeep.webhook_delivery import JITTER, WebhookSender, next_step, post

# A delivery to a host that hangs lasts longer than this.
DEADLINE_S = 60


@pytest.fixture
def sender(redis_client: Redis, redis_url: str) -> Iterator[WebhookSender]:
    """Give a sender that is stopped after the test."""
    settings = load_settings(
        redis_url=redis_url,
        fetch_allow_networks="127.0.0.1/32",
        webhook_timeout_s=2 * DEADLINE_S,
    )
    sender = WebhookSender(settings, WorkerMetrics())
    yield sender
    sender.stop()


def finished(store: JobStore, url: str) -> str:
    """Make a job that is over at once, with a webhook."""
    job = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600, webhook_url=url)
    store.open_draft(job)
    store.cancel(job.id)
    return job.id


async def hang(_request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_hanging_host_with_many_webhooks_does_not_delay_other_hosts(
    redis_client: Redis, sender: WebhookSender
) -> None:
    store = JobStore(redis_client)
    with Site({"/hook": hang}) as hanging, Site() as other:
        for _ in range(1000):
            finished(store, hanging.url("/hook", host="localhost"))
        finished(store, other.url("/hook"))
        sender.start()
        deadline = time.monotonic() + DEADLINE_S
        while not other.requests:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert hanging.open > 0, "the host does not hang"
        assert hanging.most_open <= 8


def test_a_hostile_answer_is_a_status_or_an_error_of_the_attempt(redis_client: Redis) -> None:
    answers = list(hostile_answers(seed=7, mutant_count=100))
    job = JobReader(redis_client).job(finished(JobStore(redis_client), "http://receiver.example/"))
    secret = WebhookSecrets(redis_client).get(job.owner)

    async def attempts(urls: list[str]) -> list[Attempt]:
        async with open_session(1, (ip_network("127.0.0.1/32"),)) as session:
            jobs = [replace(job, webhook_url=f"{url}/hostile") for url in urls]
            return await asyncio.gather(*(post(session, one, secret, 5) for one in jobs))

    with HostileHosts(answers) as hosts:
        made = asyncio.run(attempts(hosts.urls))
    for answer, attempt in zip(answers, made, strict=True):
        assert (attempt.status is None) != (attempt.error is None), answer.name
    assert len({attempt.error for attempt in made}) > 2
    assert len({attempt.status for attempt in made}) > 20


def test_many_webhooks_of_one_host_are_delivered_once_each(
    redis_client: Redis, sender: WebhookSender
) -> None:
    store, outbox = JobStore(redis_client), Outbox(redis_client)
    with Site() as site:
        jobs = [finished(store, site.url("/hook")) for _ in range(300)]
        sender.start()
        deadline = time.monotonic() + DEADLINE_S
        while redis_client.zcard("piqueue:hooks"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(site.requests) == 300
    assert {outbox.record(store.job(job_id)).state for job_id in jobs} == {HookState.DELIVERED}


def test_each_delivery_to_a_busy_host_waits_longer_than_the_one_before() -> None:
    host_slots = HostSlots(slots=2)
    assert host_slots.wait_s("h", now=0) == 0
    with host_slots.slot("h"), host_slots.slot("h"):
        waits = [host_slots.wait_s("h", now=0) for _ in range(3)]
        assert 0 < waits[0] < waits[1] < waits[2]
        assert host_slots.wait_s("other", now=0) == 0
        later = [host_slots.wait_s("h", now=0) for _ in range(10_000)]
        assert later[-1] == MAX_WAIT_S
    assert host_slots.wait_s("h", now=0) == 0


def test_the_status_of_an_answer_decides_whether_a_delivery_is_retried() -> None:
    retry_s = (5.0, 30.0)
    assert next_step(200, 0, retry_s)[0] is HookState.DELIVERED
    assert next_step(299, 2, retry_s)[0] is HookState.DELIVERED
    assert next_step(410, 0, retry_s)[0] is HookState.GONE
    for status, (before, wait_s) in itertools.product((None, 301, 404, 500), enumerate(retry_s)):
        state, delay_s = next_step(status, before, retry_s)
        assert state is HookState.PENDING
        assert wait_s * (1 - JITTER) <= delay_s <= wait_s * (1 + JITTER)
    assert next_step(500, 2, retry_s)[0] is HookState.GIVEN_UP
    assert len({next_step(None, 0, retry_s)[1] for _ in range(20)}) > 1
