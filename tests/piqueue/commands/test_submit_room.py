"""A folder for which there is no room: what the command says, and what the API refuses."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from piqueue import Client, JobOptions, PiqueueApiError, cli
from scripts.local.stack import Stack
from tests.conftest import STACK_ENV
from tests.pictures import jpeg


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed))
    return folder


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run an API that stores two pictures of a caller and not three, in up to two drafts."""
    env = {"PIQUEUE_QUOTA_UPLOAD_BYTES": str(5 * len(jpeg(0)) // 2), "PIQUEUE_QUOTA_DRAFTS": "2"}
    with Stack(tmp_path_factory.mktemp("bounded"), workers=0, env=STACK_ENV | env) as running:
        yield running


@pytest.fixture
def client(bounded: Stack) -> Iterator[Client]:
    """Give a client of that API, without drafts."""
    with Client(bounded.url, patience_s=0) as client:
        yield client
        for job in client.jobs():
            client.delete(job.id)


def test_the_drafts_and_jobs_of_a_caller_store_pictures_up_to_a_limit(client: Client) -> None:
    first, second = client.open_draft(), client.open_draft()
    client.add_files(first.id, {"a": jpeg(0)})
    client.add_files(second.id, {"a": jpeg(1)})
    assert client.add_files(second.id, {"a": jpeg(1)}).existing_count == 1
    assert client.limits().upload_bytes == len(jpeg(0)) + len(jpeg(1))
    with pytest.raises(
        PiqueueApiError, match="wait until some are scored, or delete drafts and jobs"
    ) as refused:
        client.add_files(second.id, {"b": jpeg(2)})
    assert (refused.value.status, refused.value.code) == (429, "over_quota")
    with pytest.raises(PiqueueApiError, match="you have 2 drafts"):
        client.open_draft()
    client.submit_draft(first.id)
    for files in ({"c": jpeg(2)}, {"c": jpeg(2), "d": jpeg(3)}):
        with pytest.raises(PiqueueApiError, match="wait until some are scored"):
            client.submit_files(files)
    client.delete(first.id)
    assert client.limits().upload_bytes == len(jpeg(1))
    client.submit_files({"b": jpeg(2)})
    assert client.limits().upload_bytes == len(jpeg(1)) + len(jpeg(2))


def test_a_caller_over_the_limit_gets_no_job_that_keeps_features(
    bounded: Stack, client: Client
) -> None:
    with Redis.from_url(bounded.redis_url) as redis:
        redis.hset("piqueue:counts", "anyone bytes", 10**9)  # as features may
        try:
            with pytest.raises(PiqueueApiError, match="thumbnails or features") as refused:
                client.submit_urls(["http://127.0.0.1:1/a.jpg"], JobOptions(keep_features=True))
            assert (refused.value.status, refused.value.code) == (429, "over_quota")
            client.submit_urls(["http://127.0.0.1:1/a.jpg"])
        finally:
            redis.hdel("piqueue:counts", "anyone bytes")


def test_a_folder_that_is_larger_than_the_quota_is_refused_before_it_is_sent(
    bounded: Stack, client: Client, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["submit", str(folder), "--url", bounded.url]) == 1
    assert (
        "submit parts of the folder, wait until other jobs are done, or delete"
        in capsys.readouterr().err
    )
    assert list(client.jobs()) == []


def test_an_upload_without_room_says_how_to_continue_and_when_it_is_gone(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("piqueue.commands.submit.PATIENCE_S", 0)
    env = {"PIQUEUE_STORAGE_RESERVE_BYTES": str(10**15)}
    with (
        Stack(tmp_path / "stack", workers=0, env=STACK_ENV | env) as full,
        Client(full.url) as client,
    ):
        command = ["submit", str(folder), "--url", full.url]
        assert cli.main(command) == 1
        said = capsys.readouterr().err
        [draft] = client.jobs()
        assert "Piqueue has room for 0 GB now" in said
        assert "is not completely uploaded, and is deleted when others need its room" in said
        assert f"--resume {draft.id} {folder}" in said
        client.delete(draft.id)
        assert cli.main([*command, "--resume", draft.id]) == 1
        assert "to send its pictures again, leave out --resume" in capsys.readouterr().err
