"""scripts/chaos: a short run, and what its tally detects."""

from collections.abc import Callable

import httpx2
import msgspec
import pytest

from piqueue import Client, Result
from scripts import chaos
from scripts.chaos import FaultReport
from scripts.faults.observer import JobStalled
from scripts.faults.tally import Sent, tally_job
from tests.api.polling import wait_done
from tests.worker.fetching.site import Site

Wrong = Callable[[list[Result]], list[Result]]


def test_a_short_run_prints_its_figures_and_keeps_the_promises(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "stop_on_signals", lambda: None)
    assert chaos.main(["--items", "800", "--seconds", "1", "reset-connections"]) == 0
    printed = capsys.readouterr().out
    for figure in ("injected: 1", "in: 800", "out: 800", "lost: 0", "doubled: 0"):
        assert figure in printed
    assert "longest stall (s): " in printed


def test_a_fault_whose_program_is_missing_is_said_not_to_have_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "stop_on_signals", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert chaos.main(["fail-over"]) == 0
    assert "NOT RUN: fail-over: no redis-server: apt-get install" in capsys.readouterr().out


def test_the_other_figures_are_printed_although_one_fault_ends_in_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_fault(name: str, *_: float) -> FaultReport:
        if name == "kill-api":
            raise JobStalled("after 600 s")
        return FaultReport(name, 90, injected=3)

    monkeypatch.setattr(chaos, "stop_on_signals", lambda: None)
    monkeypatch.setattr(chaos, "run_fault", run_fault)
    assert chaos.main(["kill-worker", "kill-api", "kill-redis"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED: kill-api: after 600 s" in printed
    assert "faults injected: 6" in printed


@pytest.mark.parametrize(
    ("wrong", "field", "count"),
    [
        (lambda results: results[1:], "lost", 1),
        (lambda results: [*results, results[2]], "doubled", 1),
        (lambda results: [_at(1, results[0]), _at(0, results[1]), *results[2:]], "wrong", 2),
        (lambda results: results, "lost", 0),
    ],
)
def test_the_tally_detects_lost_doubled_and_misplaced_results(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch, wrong: Wrong, field: str, count: int
) -> None:
    with Site() as site, Client(str(client.base_url)) as piqueue:
        sent = [Sent(site.url(f"/{index}"), "unknown") for index in range(4)]
        job = piqueue.submit_urls(item.url for item in sent)
        wait_done(client, msgspec.to_builtins(job))
        found = list(piqueue.results(job.id))
        monkeypatch.setattr(piqueue, "results", lambda _job_id: wrong(_unfetched(found)))
        tally = tally_job(piqueue, piqueue.job(job.id), sent)
    assert getattr(tally, field) == count
    assert tally.balanced == (count == 0)
    assert FaultReport("any", 90, injected=1, tallies=[tally]).kept == (count == 0)


def test_a_long_stall_a_surplus_job_and_a_missed_fault_break_the_promise() -> None:
    assert FaultReport("any", 90, injected=1, stall_s=89).kept
    assert not FaultReport("any", 90, injected=1, stall_s=91).kept
    assert not FaultReport("any", 90, injected=1, surplus_jobs=1).kept
    assert not FaultReport("any", 90).kept, "the job was done before the fault"


def _at(index: int, result: Result) -> Result:
    return msgspec.structs.replace(result, index=index)


def _unfetched(results: list[Result]) -> list[Result]:
    """Remove the hashes: `Site` answers with other bytes than a PictureServer."""
    return [msgspec.structs.replace(result, image=None) for result in results]
