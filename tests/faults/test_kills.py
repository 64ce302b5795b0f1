"""Processes end in the middle of a job, killed or asked to; then every item has its result."""

import asyncio
import os
import signal
import threading

import httpx2
from aiohttp import web

from piqueue.client import Client
from scripts.faults.injectors import kill_a_worker, kill_all_workers, kill_api
from scripts.local.stack import Stack
from tests.faults.conftest import BOUND_S, GOODBYE_S, Trying
from tests.scripts.processes import eventually, is_running
from tests.worker.fetching.site import Site
from worker.jobs.items import RejectionCode


def test_a_job_of_2000_survives_kills_of_a_worker_of_all_workers_and_of_the_api(
    hurt_stack: Stack, trying: Trying
) -> None:
    with trying(2000) as trial:
        for round_start in (100, 1000):
            for step, kill in enumerate((kill_a_worker, kill_all_workers, kill_api)):
                trial.watch.until(round_start + 300 * step)
                kill(hurt_stack)
        found = trial.account()
        assert trial.watch.longest_stall_s() < BOUND_S
    assert found.balanced, found
    assert not found.rejected, "no picture is at fault when a process is killed from outside"


def test_a_worker_told_to_stop_loses_nothing_and_nobody_waits_for_it(
    hurt_stack: Stack, trying: Trying
) -> None:
    with trying(400) as trial:
        trial.watch.until(100)
        pid = hurt_stack.workers[0]
        os.kill(pid, signal.SIGTERM)
        assert eventually(lambda: not is_running(pid), 30), "it did not end within its grace"
        found = trial.account()
        assert trial.watch.longest_stall_s() < GOODBYE_S
    assert found.balanced, found
    assert not found.rejected


def test_a_worker_told_to_stop_finishes_what_it_holds(
    hurt_stack: Stack, hurt_client: Client
) -> None:
    held = asyncio.Event()

    async def hold(_request: web.BaseRequest) -> web.StreamResponse:
        await held.wait()
        return web.Response(status=404)

    with Site({"/hold.jpg": hold}) as site:
        job = hurt_client.submit_urls([site.url("/hold.jpg")])
        assert eventually(lambda: bool(site.requests))
        pids = hurt_stack.workers
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        # Longer than a lease: had its holder let it go, another would ask for the picture again.
        assert not eventually(lambda: not any(map(is_running, pids)), 6)
        site.call(held.set)
        assert eventually(lambda: not any(map(is_running, pids)), 30)
        hurt_client.wait(job.id, timeout_s=60)
        (result,) = hurt_client.results(job.id)
        assert len(site.requests) == 1
    assert result.attempts == 1


def test_a_picture_that_kills_its_worker_is_named_and_its_neighbours_are_scored(
    hurt_stack: Stack, trying: Trying
) -> None:
    with trying(24, poisoned=frozenset({13})) as trial:
        found = trial.account()
        assert trial.watch.longest_stall_s() < BOUND_S
    assert found.balanced, found
    assert found.rejected == {RejectionCode.WORKER_LOST: 1}
    with Client(hurt_stack.url) as client:
        (lost,) = client.results(trial.job.id, status="failed")
    assert lost.index == 13


def test_a_submission_sent_again_after_the_api_was_killed_makes_one_job(
    hurt_stack: Stack, hurt_client: Client
) -> None:
    before = {job.id for job in hurt_client.jobs()}
    made: list[str] = []

    def submit() -> None:
        with Client(hurt_stack.url) as client:
            for _ in range(15):
                made.append(client.submit_urls(["http://127.0.0.1:9/a.jpg"] * 50).id)

    submitting = threading.Thread(target=submit)
    submitting.start()
    for count in (3, 8):
        assert eventually(lambda count=count: len(made) >= count, 60)  # type: ignore[misc]
        kill_api(hurt_stack)
    submitting.join()
    assert len(set(made)) == 15
    assert {job.id for job in hurt_client.jobs()} - before == set(made)


def test_an_open_event_stream_does_not_hold_up_the_end_of_the_api(
    hurt_stack: Stack, hurt_client: Client
) -> None:
    draft = hurt_client.open_draft()
    pid = hurt_stack.api_pid
    assert pid
    with httpx2.stream("GET", f"{hurt_stack.url}/jobs/{draft.id}/events", timeout=30) as events:
        lines = events.iter_lines()
        assert "progress" in next(lines)
        os.kill(pid, signal.SIGTERM)
        for _ in lines:
            pass
    assert eventually(lambda: not is_running(pid), 5), "streams are what takes twice as long"
