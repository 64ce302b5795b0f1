"""Webhooks over HTTP: a real receiver, signatures checked as a receiver would, faults, replay."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx2
import pytest
from aiohttp import web
from redis import Redis
from standardwebhooks import Webhook, WebhookVerificationError

from scripts.local.stack import Stack
from tests.api.polling import wait_done
from tests.conftest import STACK_ENV
from tests.documents import runnable
from tests.pictures import jpeg
from tests.worker.fetching.site import Answer, Site
from worker.jobs.ledger.api_keys import KeyStore

BAD_URL = "http://127.0.0.1:9/"
DEADLINE_S = 60


class Post(NamedTuple):
    """One request as the receiver saw it."""

    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> Any:
        return Webhook(secret).verify(self.body, self.headers)


class Receiver:
    """Takes webhooks at `url`, answering with each of `statuses` in turn and then with 204.

    A redirect points to another of its own paths. Pictures are at `picture_url`. With `hold_next`
    the next answer waits for `release`.
    """

    def __init__(self, statuses: Sequence[int] = (), *, hold_first: bool = False) -> None:
        self.posts: list[Post] = []
        self._statuses = iter(statuses)
        self.hold_next = hold_first
        self._released = asyncio.Event()
        answers: dict[str, Answer] = {"/hook": self._take, "/other": self._take, "/a.jpg": _picture}
        self.site = Site(answers, host="0.0.0.0")

    def url(self, host: str = "127.0.0.1") -> str:
        return self.site.url("/hook?token=s3cr3t", host=host)

    @property
    def picture_url(self) -> str:
        return self.site.url("/a.jpg", host="127.0.0.1")

    def release(self) -> None:
        self.site.call(self._released.set)

    def __enter__(self) -> Self:
        self.site.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.site.__exit__(*_)

    async def _take(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.posts.append(Post(request.raw_path, headers, await request.read()))
        if self.hold_next:
            self.hold_next = False
            await self._released.wait()
        status = next(self._statuses, 204)
        return web.Response(status=status, headers={"Location": self.site.url("/other")})


async def _picture(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=jpeg(1))


def until(
    look: Callable[[], Any], accept: Callable[[Any], bool], deadline_s: float = DEADLINE_S
) -> Any:
    """Poll until the value is accepted."""
    deadline = time.monotonic() + deadline_s
    while not accept(seen := look()):
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.02)
    return seen


def webhook(client: httpx2.Client, job: dict[str, Any]) -> dict[str, Any]:
    answer = client.get(f"{job['links']['self']}/webhook").raise_for_status()
    body: dict[str, Any] = answer.json()
    return body


def settled(client: httpx2.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Wait until no further attempt is to come."""
    seen = until(
        lambda: webhook(client, job), lambda hook: hook["state"] not in ("waiting", "pending")
    )
    assert seen["next_attempt_at"] is None
    return dict(seen)


def submit(client: httpx2.Client, receiver: Receiver, **options: Any) -> dict[str, Any]:
    body = {"urls": [receiver.picture_url], "webhook_url": receiver.url(), **options}
    answer = client.post("/jobs", json=body)
    assert answer.status_code in (201, 202), answer.text
    job: dict[str, Any] = answer.json()
    return job


def secret_of(client: httpx2.Client) -> str:
    return str(client.get("/webhooks/secret").raise_for_status().json()["secret"])


@pytest.mark.parametrize("status", ["succeeded", "partially_succeeded", "failed", "cancelled"])
def test_every_final_status_is_delivered_with_a_valid_signature(
    client: httpx2.Client, status: str
) -> None:
    with Receiver() as receiver:
        match status:
            case "succeeded":
                job = submit(client, receiver, name="album", metadata={"order": [7, None]})
            case "partially_succeeded":
                job = submit(client, receiver, urls=[receiver.picture_url, BAD_URL])
            case "failed":
                job = submit(client, receiver, urls=[BAD_URL], max_failures=0)
            case _:
                job = submit(client, receiver, urls=None, draft=True)
                client.post(job["links"]["cancel"])
        hook = settled(client, job)
        (post,) = receiver.posts
    event = post.verified(secret_of(client))
    assert event["type"] == "job.finished"
    shown = client.get(job["links"]["self"], params={"results": "false"}).json()
    assert shown["status"] == event["data"]["status"] == status
    left_out = {"results", "links", "rate_per_s", "eta_s", "hosts", "position", "starts_in_s"}
    assert event["data"] == {name: shown[name] for name in set(shown) - left_out}
    assert event["timestamp"] == shown["finished_at"]
    assert (event["data"]["error"] is not None) == (status == "failed")
    assert post.path == "/hook?token=s3cr3t"
    assert post.headers["content-type"] == "application/json"
    assert post.headers["webhook-id"] == hook["webhook_id"]
    assert (hook["state"], hook["url"]) == ("delivered", receiver.url())
    (attempt,) = hook["attempts"]
    assert (attempt["status_code"], attempt["error"]) == (204, None)


def test_a_forged_or_altered_webhook_does_not_verify(client: httpx2.Client) -> None:
    with Receiver() as receiver:
        settled(client, submit(client, receiver))
        (post,) = receiver.posts
    secret = secret_of(client)
    post.verified(secret)
    altered = post._replace(body=post.body.replace(b"succeeded", b"cancelled"))
    with pytest.raises(WebhookVerificationError):
        altered.verified(secret)
    with pytest.raises(WebhookVerificationError):
        post.verified("whsec_" + "A" * 44)


def test_the_documented_way_to_verify_works(client: httpx2.Client) -> None:
    [_, code] = runnable("docs/webhooks.md")
    written: dict[str, Any] = {}
    exec(code.text, written)
    with Receiver() as receiver:
        job = submit(client, receiver)
        settled(client, job)
        (post,) = receiver.posts
    assert written["finished_job"](post.headers, post.body, secret_of(client))["id"] == job["id"]
    with pytest.raises(WebhookVerificationError):
        written["finished_job"](post.headers, post.body + b" ", secret_of(client))


def test_a_webhook_is_retried_until_it_is_accepted_and_never_redirected(
    client: httpx2.Client,
) -> None:
    with Receiver([500, 302]) as receiver:
        job = submit(client, receiver)
        hook = settled(client, job)
        posts = receiver.posts
    assert [attempt["status_code"] for attempt in hook["attempts"]] == [204, 302, 500]
    assert [post.path for post in posts] == ["/hook?token=s3cr3t"] * 3
    assert {post.headers["webhook-id"] for post in posts} == {hook["webhook_id"]}
    assert len({post.body for post in posts}) == 1
    for post in posts:
        post.verified(secret_of(client))


def test_a_webhook_that_is_never_accepted_is_given_up(client: httpx2.Client) -> None:
    with Receiver([503] * 10) as receiver:
        hook = settled(client, submit(client, receiver))
    assert hook["state"] == "given_up"
    assert len(receiver.posts) == len(hook["attempts"]) == 4, "the first and three more"


def test_a_receiver_that_returns_410_gets_one_request(client: httpx2.Client) -> None:
    with Receiver([410]) as receiver:
        hook = settled(client, submit(client, receiver))
    assert hook["state"] == "gone"
    assert [attempt["status_code"] for attempt in hook["attempts"]] == [410]


def test_webhooks_to_private_addresses_are_blocked(client: httpx2.Client) -> None:
    with Receiver() as receiver:
        hooks = [
            settled(client, submit(client, receiver, webhook_url=receiver.url(host)))
            for host in ("127.0.0.2", "2130706433")
        ]
    assert receiver.posts == []
    for hook in hooks:
        assert hook["state"] == "given_up"
        assert {attempt["error"] for attempt in hook["attempts"]} == {"fetch_blocked_address"}


def test_an_unreachable_receiver_is_logged(client: httpx2.Client) -> None:
    with Receiver() as receiver:
        hook = settled(client, submit(client, receiver, webhook_url=BAD_URL))
    assert {attempt["error"] for attempt in hook["attempts"]} == {"fetch_connection"}
    assert all(attempt["status_code"] is None for attempt in hook["attempts"])


def test_a_receiver_that_hangs_delays_neither_scoring_nor_other_webhooks(
    client: httpx2.Client,
) -> None:
    async def hang(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    with Receiver() as receiver, Site({"/hook": hang}) as hanging:
        hung = [
            submit(client, receiver, webhook_url=hanging.url("/hook", host="localhost"))
            for _ in range(12)
        ]
        until(lambda: hanging.open, lambda count: count >= 8)
        job = submit(client, receiver)
        assert wait_done(client, job)["status"] == "succeeded"
        assert hanging.open > 0, "it was not hanging any more"
        assert settled(client, job)["state"] == "delivered"
        seen = until(lambda: webhook(client, hung[0]), lambda hook: bool(hook["attempts"]))
        assert seen["attempts"][0]["error"] == "fetch_timeout"
        timeout_ms = 1000 * int(STACK_ENV["PIQUEUE_WEBHOOK_TIMEOUT_S"])
        assert seen["attempts"][0]["took_ms"] >= timeout_ms
        assert hanging.most_open <= 8


def test_a_webhook_can_be_replayed_under_the_same_id(client: httpx2.Client) -> None:
    with Receiver([410]) as receiver:
        job = submit(client, receiver)
        assert settled(client, job)["state"] == "gone"
        receiver.hold_next = True  # or it may be delivered before the answer
        answer = client.post(f"{job['links']['self']}/webhook/replay")
        receiver.release()
        assert (answer.status_code, answer.json()["state"]) == (202, "pending")
        hook = settled(client, job)
        first, second = receiver.posts
    assert [attempt["status_code"] for attempt in hook["attempts"]] == [204, 410]
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == hook["webhook_id"]


def test_a_job_without_webhook_or_still_running_is_not_replayed(client: httpx2.Client) -> None:
    without = client.post("/jobs", json={"draft": True}).json()["links"]["self"]
    for method, path in (("GET", "/webhook"), ("POST", "/webhook/replay")):
        answer = client.request(method, without + path)
        assert (answer.status_code, answer.json()["code"]) == (404, "webhook_not_found")
        assert client.request(method, f"/jobs/job_x{path}").json()["code"] == "job_not_found"
    draft = client.post("/jobs", json={"draft": True, "webhook_url": "http://h/"}).json()
    answer = client.post(f"{draft['links']['self']}/webhook/replay")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_done")
    assert webhook(client, draft)["state"] == "waiting"


def test_for_a_day_after_a_rotation_both_secrets_sign(client: httpx2.Client) -> None:
    before = client.get("/webhooks/secret")
    assert before.headers["cache-control"] == "no-store"
    refused = client.post("/webhooks/secret/rotate", json={"keep": True})
    assert refused.json()["detail"] == "the body has no effect here: leave it out"
    assert secret_of(client) == before.json()["secret"]
    rotated = client.post("/webhooks/secret/rotate")
    assert rotated.headers["cache-control"] == "no-store"
    old, new = before.json()["secret"], rotated.json()["secret"]
    assert old != new
    assert rotated.json()["previous_until"] is not None
    assert secret_of(client) == new
    with Receiver() as receiver:
        settled(client, submit(client, receiver))
        (post,) = receiver.posts
    assert len(post.headers["webhook-signature"].split()) == 2
    assert post.verified(old) == post.verified(new)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://h/?token=s3cr3t", "http:// or https://"),
        ("s3://bucket/?token=s3cr3t", "http:// or https://"),
        ("http:///?token=s3cr3t", "no host"),
        ("https://user:s3cr3t@h/", "user name or password"),
        ("https://h:s3cr3t/", "not a URL"),
    ],
)
def test_an_invalid_webhook_url_is_refused_at_submission(
    client: httpx2.Client, url: str, says: str
) -> None:
    options = {"webhook_url": url}
    picture = [("files", ("a.jpg", jpeg(1)))]
    form = f'{{"webhook_url": "{url}"}}'
    table = {"content": b"url\nhttp://h/\n", "headers": {"content-type": "text/csv"}}
    for answer in (
        client.post("/jobs", json={"urls": ["http://h/"], **options}),
        client.post("/jobs", json={"draft": True, **options}),
        client.post("/jobs", files=picture, data={"options": form}),
        client.post("/jobs", params=options, **table),  # type: ignore[arg-type]
    ):
        assert answer.status_code == 422, answer.text
        assert says in answer.json()["detail"]
        assert "webhook_url" in answer.json()["detail"]


class Guarded(NamedTuple):
    """A stack with two API keys and a client of each; `folder` holds its logs."""

    stack: Stack
    alice: httpx2.Client
    bob: httpx2.Client
    folder: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Run a stack of its own whose workers may be killed."""
    folder = tmp_path_factory.mktemp("hooks")
    # The first pause is longer than this test may stall before it kills them.
    env = {**STACK_ENV, "PIQUEUE_WEBHOOK_RETRY_S": "6,2,2,2"}
    with (
        Stack(folder, workers=2, env=env) as stack,
        Redis.from_url(stack.redis_url) as redis,
        httpx2.Client(base_url=stack.url, timeout=60) as alice,
        httpx2.Client(base_url=stack.url, timeout=60) as bob,
    ):
        keys = KeyStore(redis)
        for client, name in ((alice, "alice"), (bob, "bob")):
            client.headers["Authorization"] = f"Bearer {keys.add(name)}"
        yield Guarded(stack, alice, bob, folder)


@pytest.mark.parametrize("when", ["before the second attempt", "in the middle of the first"])
def test_a_webhook_outlives_all_workers(guarded: Guarded, when: str) -> None:
    in_the_middle = when == "in the middle of the first"
    with Receiver(() if in_the_middle else [500], hold_first=in_the_middle) as receiver:
        job = submit(guarded.alice, receiver)
        if in_the_middle:
            until(lambda: receiver.posts, bool)
        else:
            until(lambda: webhook(guarded.alice, job), lambda hook: bool(hook["attempts"]))
        pids = guarded.stack.workers
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert len(receiver.posts) == 1, "it was sent before the workers were killed"
        hook = settled(guarded.alice, job)
        assert not set(pids) & set(guarded.stack.workers)
        first, second = receiver.posts
    assert hook["state"] == "delivered"
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    second.verified(secret_of(guarded.alice))


def test_only_the_owner_sees_webhooks_secrets_and_events(guarded: Guarded) -> None:
    alice, bob = guarded.alice, guarded.bob
    assert secret_of(alice) != secret_of(bob)
    with Receiver() as receiver:
        job = submit(alice, receiver)
        settled(alice, job)
        (post,) = receiver.posts
    post.verified(secret_of(alice))
    with pytest.raises(WebhookVerificationError):
        post.verified(secret_of(bob))
    path = job["links"]["self"]
    for method, suffix in (("GET", "/webhook"), ("POST", "/webhook/replay"), ("GET", "/events")):
        answer = bob.request(method, path + suffix)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
        unknown = httpx2.request(method, guarded.stack.url + path + suffix, timeout=60)
        assert unknown.status_code == 401
    for method, path in (("GET", "/webhooks/secret"), ("POST", "/webhooks/secret/rotate")):
        assert httpx2.request(method, guarded.stack.url + path, timeout=60).status_code == 401


def test_no_log_and_no_other_response_contains_a_secret_or_a_query(guarded: Guarded) -> None:
    alice = guarded.alice
    with Receiver([500]) as receiver:
        job = submit(alice, receiver)
        settled(alice, job)
        refused = submit(alice, receiver, webhook_url=f"{BAD_URL}?token=s3cr3t")
        until(lambda: webhook(alice, refused), lambda hook: bool(hook["attempts"]))
        (post, *_) = receiver.posts
    for path in (job["links"]["self"], "/jobs"):
        assert "s3cr3t" not in alice.get(path).text
    assert b"s3cr3t" not in post.body
    logs = [path.read_text() for path in guarded.folder.glob("*.log*")]
    assert any("webhook_attempted" in log for log in logs)
    for log in logs:
        assert "s3cr3t" not in log
        assert "whsec_" not in log
        assert secret_of(alice).removeprefix("whsec_") not in log
