"""One key works while another misuses the service."""

import pytest

from scripts.faults.neighbours import (
    JOB_BOUND,
    LATENCY_BOUND_S,
    NEIGHBOURS,
    SHARE_BOUND,
    NeighbourReport,
    Work,
    run_neighbour,
    table,
)

ALONE = Work(p95_s=0.01, job_s=2)
# The job of this test is short: it may take so much longer because the machine stood still for some
# seconds, and one that its neighbour holds up takes longer still.
STALLED_S = 8


@pytest.mark.parametrize("kind", ["small jobs", "slow uploads"])
def test_a_job_beside_a_neighbour_that_misuses_the_service_ends(kind: str) -> None:
    report = run_neighbour(kind, 100, 1)
    # The API closes a slow upload only after a while.
    assert report.answers > 0 or kind == "slow uploads"
    bound = 2 * NEIGHBOURS[kind].job_bound
    assert report.beside.job_s < bound * report.alone.job_s + STALLED_S


def test_slow_requests_and_a_slow_job_break_the_promise() -> None:
    reports = {
        kept: NeighbourReport("slow uploads", 1, ALONE, Work(p95_s, job_s))
        for kept, p95_s, job_s in (
            ("kept", LATENCY_BOUND_S, 2 * JOB_BOUND),
            ("late", LATENCY_BOUND_S + 0.01, 2),
            ("long", 0.01, 2 * JOB_BOUND + 1),
        )
    }
    assert [name for name, report in reports.items() if report.kept] == ["kept"]
    for kind in ("small jobs", "hostile pictures"):
        assert NeighbourReport(kind, 1, ALONE, reports["long"].beside).kept, "shares are of items"
        assert not NeighbourReport(kind, 1, ALONE, reports["late"].beside).kept
    starved = Work(p95_s=0.01, job_s=2 * SHARE_BOUND + 1)
    assert not NeighbourReport("small jobs", 1, ALONE, starved).kept
    assert "every promise was kept" in table([reports["kept"]])
    assert "NOT KEPT beside slow uploads" in table([*reports.values()])
