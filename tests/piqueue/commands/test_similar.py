"""What piqueue similar says while a worker compares the pictures of a job."""

from types import SimpleNamespace

import pytest

from piqueue import cli
from tests.piqueue.test_client import problem, says
from tests.worker.fetching.site import Site


@pytest.mark.parametrize(
    ("arguments", "answer", "shown"),
    [
        (("similar", "job_1", "0"), "[]", ""),
        (
            ("duplicates", "job_1"),
            '{"compared": 2, "group_count": 0, "duplicate_count": 0, "groups": [], '
            '"next_cursor": null}',
            "no pictures are nearly the same\n",
        ),
    ],
)
def test_a_comparison_is_waited_for_and_said_once(
    arguments: tuple[str, ...],
    answer: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # More than the ten seconds for which most commands wait.
    turns = [*[problem(503, "not_compared", Retry_After="11")] * 2, says(200, answer)]
    paused: list[float] = []
    event = SimpleNamespace(wait=paused.append, set=lambda: None)
    monkeypatch.setattr("piqueue.client.threading", SimpleNamespace(Event=lambda: event))
    with Site({f"/jobs/job_1/{arguments[0]}": lambda request: turns.pop(0)(request)}) as site:
        assert cli.main([*arguments, "--url", site.url("")]) == 0
    captured = capsys.readouterr()
    assert captured.out == shown
    assert captured.err == "comparing the pictures of the job: this can take some minutes\n"
    assert paused == [11, 11]
