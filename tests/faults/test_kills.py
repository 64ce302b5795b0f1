"""Processes are killed or terminated in the middle of a job; every item still gets its result."""

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import httpx2
from aiohttp import web

from api.__main__ import GRACE_S
from piqueue import Client
from scripts.faults.fault_injectors import (
    STORM_KILLS,
    kill_a_worker,
    kill_all_workers,
    kill_api,
    restart_everything,
    storm_of_kills,
)
from scripts.faults.pictures import PictureServer
from scripts.local.stack import Stack
from tests.faults.conftest import BOUND_S, LEASE_S, SLOW_S, TERMINATION_BOUND_S, RunTrial
from tests.pictures import jpeg
from tests.scripts.processes import eventually, is_running
from tests.worker.fetching.site import Site
from worker.jobs.items import RejectionCode


def test_a_job_of_2000_items_survives_kills_of_workers_and_of_the_api(
    fault_stack: Stack, run_trial: RunTrial
) -> None:
    with run_trial(2000) as trial:
        for round_start in (100, 1000):
            for step, kill in enumerate((kill_a_worker, kill_all_workers, kill_api)):
                trial.observer.wait_finished(round_start + 300 * step)
                kill(fault_stack)
        tally = trial.tally()
        assert trial.observer.longest_stall_s() < BOUND_S
    assert tally.balanced, tally
    assert not tally.rejected, "no picture is to blame when a process is killed from outside"


def test_a_storm_of_kills_leaves_no_worker_in_a_pause(
    fault_stack: Stack, run_trial: RunTrial
) -> None:
    with run_trial(2000) as trial:
        trial.observer.wait_finished(100)
        storm_of_kills(fault_stack)
        # The supervisor needs a moment if this machine stood still; a pause is longer.
        assert eventually(lambda: len(fault_stack.workers) == 2, 1), (
            f"a worker waits after {STORM_KILLS} kills"
        )
        tally = trial.tally()
        assert trial.observer.longest_stall_s() < BOUND_S
    assert tally.balanced, tally


def test_a_rolling_restart_of_everything_loses_nothing(
    fault_stack: Stack, run_trial: RunTrial
) -> None:
    before = {fault_stack.api_pid, fault_stack.redis_pid, *fault_stack.workers}
    with run_trial(1200) as trial:
        trial.observer.wait_finished(100)
        restart_everything(fault_stack)
        assert not before & {fault_stack.api_pid, fault_stack.redis_pid, *fault_stack.workers}
        tally = trial.tally()
        assert trial.observer.longest_stall_s() < TERMINATION_BOUND_S
    assert tally.balanced, tally
    assert not tally.rejected


def test_a_terminated_worker_loses_nothing_and_causes_no_long_stall(
    fault_stack: Stack, run_trial: RunTrial
) -> None:
    with run_trial(400, delay_s=SLOW_S) as trial:
        trial.observer.wait_finished(100)
        pid = fault_stack.workers[0]
        os.kill(pid, signal.SIGTERM)
        assert eventually(lambda: not is_running(pid), 30), "it did not end within its grace"
        tally = trial.tally()
        assert trial.observer.longest_stall_s() < TERMINATION_BOUND_S
    assert tally.balanced, tally
    assert not tally.rejected


def test_a_terminated_worker_finishes_its_chunks(fault_stack: Stack, fault_client: Client) -> None:
    released = asyncio.Event()

    async def hold(_request: web.BaseRequest) -> web.StreamResponse:
        await released.wait()
        return web.Response(status=404)

    with Site({"/hold.jpg": hold}) as site:
        job = fault_client.submit_urls([site.url("/hold.jpg")])
        assert eventually(lambda: bool(site.requests))
        pids = fault_stack.workers
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        # Longer than a lease: without renewal another worker would request the picture again.
        assert not eventually(lambda: not any(map(is_running, pids)), LEASE_S + 2)
        site.call(released.set)
        assert eventually(lambda: not any(map(is_running, pids)), 30)
        fault_client.wait(job.id, timeout_s=60)
        (result,) = fault_client.results(job.id)
        assert len(site.requests) == 1
    assert result.attempts == 1


def test_a_poison_picture_is_rejected_and_its_neighbours_are_scored(
    fault_stack: Stack, run_trial: RunTrial
) -> None:
    with run_trial(24, poisoned=frozenset({13})) as trial:
        tally = trial.tally()
        assert trial.observer.longest_stall_s() < BOUND_S
    assert tally.balanced, tally
    assert tally.rejected == {RejectionCode.WORKER_LOST: 1}
    with Client(fault_stack.url) as client:
        (lost,) = client.results(trial.job.id, status="failed")
    assert lost.index == 13


def test_a_submission_repeated_after_the_api_was_killed_creates_one_job(
    fault_stack: Stack, fault_client: Client
) -> None:
    before = {job.id for job in fault_client.jobs()}
    made: list[str] = []

    def submit() -> None:
        with Client(fault_stack.url) as client:
            for _ in range(15):
                made.append(client.submit_urls(["http://127.0.0.1:9/a.jpg"] * 50).id)

    submitting = threading.Thread(target=submit)
    submitting.start()
    for count in (3, 8):
        assert eventually(lambda count=count: len(made) >= count, 60)  # type: ignore[misc]
        kill_api(fault_stack)
    submitting.join()
    assert len(set(made)) == 15
    assert {job.id for job in fault_client.jobs()} - before == set(made)
    for job_id in made:
        fault_client.delete(job_id)


def test_a_draft_keeps_each_acknowledged_item_once_when_the_api_is_killed(
    fault_stack: Stack, fault_client: Client
) -> None:
    """Several clients add URLs without ids, and files; they repeat each request that breaks."""
    senders, requests, urls_in_each = 4, 24, 10
    draft = fault_client.open_draft()
    acknowledged: list[list[str]] = []
    broken: list[int] = []
    sent: list[tuple[str, str]] = []

    def request(number: int) -> dict[str, Any]:
        """Give the body of a request, which is a form for each second one."""
        if number % 2:
            name, content = f"{number}.jpg", jpeg(number)
            sent.append((name, sha256(content).hexdigest()))
            return {"files": [("files", (name, content))]}
        indexes = range(number * urls_in_each, (number + 1) * urls_in_each)
        sent.extend((pictures.url(index), pictures.sha256(index)) for index in indexes)
        return {"json": {"urls": [pictures.url(index) for index in indexes]}}

    def add(http: httpx2.Client, number: int) -> list[str]:
        """Send a request until it is answered; gives the ids of its items."""
        body, key = request(number), {"Idempotency-Key": f"part-{number}"}
        while True:
            try:
                answer = http.post(f"/jobs/{draft.id}/items", headers=key, **body)
            except httpx2.TransportError:
                broken.append(number)
                time.sleep(0.02)
                continue
            change = answer.raise_for_status().json()
            return [*change["added_ids"], *change["existing_ids"]]

    def send(sender: int) -> None:
        with httpx2.Client(base_url=fault_stack.url, timeout=60, trust_env=False) as http:
            for number in range(sender * requests, (sender + 1) * requests):
                acknowledged.append(add(http, number))

    with PictureServer(delay_s=0) as pictures, ThreadPoolExecutor(senders) as pool:
        sending = [pool.submit(send, sender) for sender in range(senders)]
        for count in (10, 40, 70):
            assert eventually(lambda count=count: len(acknowledged) >= count, 60)  # type: ignore[misc]
            before = {item_id for ids in acknowledged for item_id in ids}
            kill_api(fault_stack)
            assert eventually(fault_client.ready, 60)
            assert before <= set(fault_client.draft_ids(draft.id)), "an acknowledged item is gone"
        for one in sending:
            one.result()
        assert broken, "no request was interrupted"

        ids = [item_id for ids in acknowledged for item_id in ids]
        assert len(set(ids)) == len(ids) == len(sent)
        assert sorted(fault_client.draft_ids(draft.id)) == sorted(ids)
        job = fault_client.wait(fault_client.submit_draft(draft.id).id)
        results = list(fault_client.results(job.id))
    found = [
        (one.source.url or one.source.filename, one.image and one.image.sha256) for one in results
    ]
    assert sorted(found) == sorted(sent)
    assert job.counts.succeeded == len(sent)


def test_an_open_event_stream_does_not_delay_the_shutdown_of_the_api(
    fault_stack: Stack, fault_client: Client
) -> None:
    draft = fault_client.open_draft()
    pid = fault_stack.api_pid
    assert pid
    with httpx2.stream("GET", f"{fault_stack.url}/jobs/{draft.id}/events", timeout=30) as events:
        lines = events.iter_lines()
        assert "progress" in next(lines)
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        for _ in lines:
            pass
    assert eventually(lambda: not is_running(pid))
    assert time.monotonic() - began < GRACE_S, "the open stream delayed it"
