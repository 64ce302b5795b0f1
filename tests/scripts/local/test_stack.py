"""The stack as real processes: supervised, restarted, and gone when it stops."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from piqueue import Client
from scripts.local.stack import ROOT, Stack, listenable_port
from scripts.local.supervised_process import StartFailed
from tests.api.polling import all_results, wait_done
from tests.pictures import jpeg
from tests.scripts.processes import eventually, is_running
from tests.worker.registry import add_version


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack whose processes may be killed."""
    env = {"PIQUEUE_LEASE_S": "3"}  # interrupted chunks are tried again after this
    with Stack(tmp_path_factory.mktemp("own"), workers=2, env=env) as stack:
        yield stack


@pytest.fixture
def own_client(own_stack: Stack) -> Iterator[httpx2.Client]:
    """Give a client of that stack, once all its processes run."""
    with httpx2.Client(base_url=own_stack.url, timeout=30) as client:
        assert eventually(lambda: is_complete(own_stack, client))
        yield client


def is_complete(stack: Stack, client: httpx2.Client) -> bool:
    try:
        return len(stack.workers) == 2 and client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def submit(client: httpx2.Client, count: int) -> str:
    pictures = [jpeg(seed) for seed in range(8)]
    files = [("files", (f"{number}.jpg", pictures[number % 8])) for number in range(count)]
    return str(client.post("/jobs", files=files).raise_for_status().json()["id"])


def test_a_killed_worker_is_restarted(own_stack: Stack, own_client: httpx2.Client) -> None:
    killed, other = own_stack.workers
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: len(set(own_stack.workers) - {killed, other}) == 1)
    assert other in own_stack.workers
    job = own_client.get(f"/jobs/{submit(own_client, 3)}").json()
    assert wait_done(own_client, job)["counts"]["succeeded"] == 3


def test_a_killed_api_is_restarted_on_its_port(own_stack: Stack, own_client: httpx2.Client) -> None:
    job_id = submit(own_client, 1)
    assert own_stack.api_pid
    os.kill(own_stack.api_pid, signal.SIGKILL)
    assert eventually(lambda: is_complete(own_stack, own_client))
    assert own_client.get(f"/jobs/{job_id}").json()["counts"]["total"] == 1


def test_a_killed_redis_is_restarted_with_its_jobs(
    own_stack: Stack, own_client: httpx2.Client
) -> None:
    job_id = submit(own_client, 3)
    killed = own_stack.redis_pid
    assert killed
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: own_stack.redis_pid not in (None, killed))
    assert eventually(lambda: is_complete(own_stack, own_client))
    # The first request on a connection that ended with Redis may be told to come again.
    assert eventually(lambda: own_client.get(f"/jobs/{job_id}").status_code != 503)
    job = wait_done(own_client, own_client.get(f"/jobs/{job_id}").json(), deadline_s=90)
    assert job["counts"]["succeeded"] == 3


def test_an_accepted_job_of_files_survives_a_kill_of_everything(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack, Client(stack.url) as client:
        draft = client.open_draft()
        for first in (0, 50):
            numbers = range(first, first + 50)
            client.add_files(draft.id, {f"{number}.jpg": jpeg(number) for number in numbers})
        for worker in stack.workers:
            os.kill(worker, signal.SIGSTOP)  # a worker deletes the files that it has scored
        client.submit_draft(draft.id)
        for pid in (stack.redis_pid, stack.api_pid, *stack.workers):
            assert pid
            os.kill(pid, signal.SIGKILL)
        assert list((tmp_path / "uploads").glob(f"*/{draft.id}/*/*"))
        assert eventually(client.ready, 60)
        job = client.wait(draft.id)
        assert (job.counts.succeeded, job.counts.total) == (100, 100)
        client.delete(draft.id)
    assert not list((tmp_path / "uploads").glob(f"*/{draft.id}"))


def test_a_stop_interrupts_no_chunk_and_a_start_continues_the_job(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack, httpx2.Client(base_url=stack.url, timeout=30) as client:
        job_id = submit(client, 160)
        pids = [stack.redis_pid, stack.api_pid, *stack.workers]
    assert len(pids) == 3
    assert not any(pid is None or is_running(pid) for pid in pids)
    with Stack(tmp_path) as stack, httpx2.Client(base_url=stack.url, timeout=30) as client:
        job = wait_done(client, client.get(f"/jobs/{job_id}").json())
        results = all_results(client, job)
    assert [result["id"] for result in results] == [f"{number}.jpg" for number in range(160)]
    assert {(result["status"], result["attempts"]) for result in results} == {("succeeded", 1)}


def test_a_relative_registry_path_starts_at_the_folder_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version(tmp_path / "registry", "7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIQUEUE_REGISTRY_URL", "registry")
    with Stack(tmp_path / "stack") as stack, httpx2.Client(base_url=stack.url) as client:
        names = {model["name"] for model in client.get("/models").json()}
    assert "places" in names


def adjacent_free_ports() -> int:
    """Find a port that is free, as the next one is."""
    while True:
        port = listenable_port("127.0.0.1", 0)
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port


def test_each_worker_serves_its_metrics_on_its_own_port(tmp_path: Path) -> None:
    def served(port: int) -> bool:
        try:
            return "piqueue_" in httpx2.get(f"http://127.0.0.1:{port}/metrics").text
        except httpx2.TransportError:
            return False

    port = adjacent_free_ports()
    with Stack(tmp_path, workers=2, env={"PIQUEUE_METRICS_PORT": str(port)}):
        assert eventually(lambda: served(port))
        assert eventually(lambda: served(port + 1))


def test_a_free_port_is_none_that_the_system_gives_to_others() -> None:
    ports = {listenable_port("127.0.0.1", 0) for _ in range(100)}
    assert max(ports) < 32_768, "Linux gives these to others"
    assert len(ports) > 50, "two that look at the same time would get the same"


def test_a_taken_port_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartFailed, match=f"port {port} is in use, perhaps by another"):
            Stack(tmp_path / "data", port=port).start()
    assert not (tmp_path / "data").exists()


def test_a_stack_that_does_not_start_says_why_and_leaves_nothing_running(tmp_path: Path) -> None:
    stack = Stack(tmp_path, env={"PIQUEUE_DEFAULT_MODEL": "none"})
    with pytest.raises(StartFailed, match="no model 'none': use one of"):
        stack.start()
    assert (stack.redis_pid, stack.api_pid, stack.workers) == (None, None, [])


def test_a_wrong_setting_is_reported_before_anything_starts(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data", env={"PIQUEUE_BATCH_SIZE": "many"})
    with pytest.raises(StartFailed, match=r"^PIQUEUE_BATCH_SIZE: must be a whole number"):
        stack.start()
    assert not (tmp_path / "data").exists()


def test_a_killed_supervisor_leaves_nothing_running(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from scripts.local.stack import Stack
with Stack(Path({str(tmp_path)!r})) as stack:
    print(stack.redis_pid, stack.api_pid, *stack.workers, flush=True)
    input()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(is_running, pids))
        process.kill()
    assert eventually(lambda: not any(map(is_running, pids)))
