"""The asynchronous client: the same methods as the synchronous one, on a running Piqueue."""

import inspect
import io
import typing
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from piqueue import AsyncClient, Client, Item, JobOptions, PiqueueApiError
from scripts.local.stack import Stack
from tests.pictures import jpeg
from tests.piqueue.test_client import (
    accepted,  # noqa: F401 - a fixture
    hang_up,
    misbehaving,
    photos,  # noqa: F401
    problem,
)
from tests.worker.fetching.site import Answer, Site


def public(client: type) -> dict[str, inspect.Signature]:
    """The public methods, with AsyncIterator as Iterator."""
    sync = {AsyncIterator: Iterator}
    signatures = {}
    for name, method in inspect.getmembers(client, inspect.isfunction):
        if not name.startswith("_"):
            signature = inspect.signature(method)
            returned = signature.return_annotation
            if (origin := typing.get_origin(returned)) in sync:
                returned = sync[origin][typing.get_args(returned)]
            signatures[name] = signature.replace(return_annotation=returned)
    return signatures


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    assert public(AsyncClient) == public(Client)
    assert inspect.signature(AsyncClient) == inspect.signature(Client)
    for name in public(Client):
        said, also = (inspect.getdoc(getattr(each, name)) for each in (Client, AsyncClient))
        assert said
        assert also


def test_a_job_is_submitted_followed_and_read(
    stack: Stack,
    photos: Site,  # noqa: F811
    tmp_path: Path,
) -> None:
    table = tmp_path / "photos.csv"
    table.write_text(f"sku,picture\na,{photos.url('/1.jpg')}\nb,{photos.url('/none.jpg')}\n")

    async def run() -> None:
        async with AsyncClient(stack.url) as client:
            assert await client.ready()
            assert [model.name for model in await client.models()]
            assert (await client.limits()).max_items
            tried = await client.dry_run_csv(table, url_column="picture")
            assert (tried.items, tried.sampled) == (2, 2)
            job = await client.submit_csv(table, url_column="picture", id_column="sku")
            seen = [each async for each in client.follow(job.id)]
            assert seen[-1].status == "partially_succeeded"
            assert [result.id async for result in client.results(job.id)] == ["a", "b"]
            target = io.BytesIO(b"longer than the results " * 100)
            await client.download(job.id, target, "csv", status="failed")
            assert target.getvalue().count(b"\n") == 2
            again = await client.retry(job.id)
            assert (await client.wait(again.id, timeout_s=60)).parent_job == job.id
            assert (await client.cancel(job.id)).id == job.id
            assert [each.id async for each in client.jobs()][:2] == [again.id, job.id]
            await client.delete(job.id)
            with pytest.raises(PiqueueApiError) as gone:
                await client.job(job.id)
            assert gone.value.code == "job_not_found"

    anyio.run(run)


def test_a_draft_takes_files_and_items(stack: Stack, photos: Site, tmp_path: Path) -> None:  # noqa: F811
    picture = tmp_path / "1.jpg"
    picture.write_bytes(jpeg(1))

    async def run() -> None:
        async with AsyncClient(stack.url) as client:
            draft = await client.open_draft(JobOptions(name="folder"))
            with pytest.raises(TimeoutError):
                await client.wait(draft.id, timeout_s=0.1)
            await client.add_files(draft.id, {"a": picture})
            await client.add_items(draft.id, [Item(url=photos.url("/2.jpg"), id="b")])
            assert [item_id async for item_id in client.draft_ids(draft.id)] == ["a", "b"]
            for _ in range(2):
                job = await client.submit_draft(draft.id)
            assert (job.name, job.counts.total) == ("folder", 2)
            files = await client.submit_files({"a": picture, "b": jpeg(2)})
            urls = await client.submit_urls([photos.url("/1.jpg")])
            for each in (job, files, urls):
                assert (await client.wait(each.id, timeout_s=60)).status == "succeeded"

    anyio.run(run)


def test_a_request_is_sent_again_under_the_same_key(accepted: Answer) -> None:  # noqa: F811
    told: list[PiqueueApiError] = []

    async def run(url: str) -> None:
        async with AsyncClient(url, on_retry=lambda error, _: told.append(error)) as client:
            await client.submit_csv(lambda: iter([b"url\n", b"http://h/\n"]))

    with misbehaving(problem(503, "queue_full", Retry_After="0"), hang_up, accepted) as site:
        anyio.run(run, site.url(""))
        keys = [seen.headers["Idempotency-Key"] for seen in site.requests]
    assert (len(keys), len(set(keys))) == (3, 1)
    assert [error.code for error in told] == ["queue_full", "unreachable"]


def test_who_waits_for_the_next_attempt_can_be_told_to_give_up() -> None:
    async def run(url: str) -> None:
        async with AsyncClient(url) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(give_up_later, client)
            with anyio.fail_after(30), pytest.raises(PiqueueApiError, match="queue_full"):
                await client.limits()

    async def give_up_later(client: AsyncClient) -> None:
        await anyio.sleep(0.3)
        client.give_up()

    full = problem(503, "queue_full", Retry_After="100")
    with Site({"/limits": full}) as site:
        anyio.run(run, site.url(""))
