"""Injects every fault repeatedly into a separate stack on this machine, and counts the items.

For each fault, it submits jobs until the time of the fault is over, and waits until they are done.
`neighbours` measures instead what one API key sees while another misuses the service, one kind of
misuse after the other.
The exit code is 0 only if no item was lost, duplicated or given a wrong result, all counts agree,
and no job stalled for longer, or was slower beside a neighbour, than docs/promises.md allows.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import RedisError

from piqueue import Client, PiqueueApiError
from scripts.faults.fault_injectors import FAULTS, POISON_PATH
from scripts.faults.neighbours import NEIGHBOURS, NeighbourReport, run_neighbour, table
from scripts.faults.observer import JobStalled, Observer
from scripts.faults.pictures import PictureServer
from scripts.faults.sentinel import ProgramMissing
from scripts.faults.tally import Sent, Tally, tally_job
from scripts.local.serve import positive, stop_on_signals
from scripts.local.supervised_process import StartFailed
from scripts.text_table import markdown
from worker.jobs.items import RejectionCode

ENV = {"PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32", "PYTHONPATH": str(POISON_PATH)}
WORKERS = 2
DONE_DEADLINE_S = 600
NEIGHBOURS_NAME = "neighbours"
# A job beside a neighbour has this part of the items; each runs twice.
NEIGHBOUR_SHARE = 5
_HEADER = ("fault", "injected", "jobs", "in", "out", "lost", "doubled", "wrong", "stall", "bound")


@dataclass
class FaultReport:
    """What one fault cost; `stall_s` is the longest time without a finished item."""

    fault: str
    bound_s: float
    injected: int = 0
    tallies: list[Tally] = field(default_factory=list)
    stall_s: float = 0
    # Jobs beyond those that were submitted.
    surplus_jobs: int = 0

    @property
    def kept(self) -> bool:
        """Whether the fault was injected and cost nothing but time, within its bound."""
        balanced = all(tally.balanced for tally in self.tallies) and not self.surplus_jobs
        return self.injected > 0 and balanced and self.stall_s <= self.bound_s

    def total(self, field: str) -> int:
        """Sum a field of `Tally` over all jobs."""
        return sum(getattr(tally, field) for tally in self.tallies)

    @property
    def doubled(self) -> int:
        """Results and jobs that should not exist."""
        return self.total("doubled") + self.surplus_jobs

    def row(self) -> tuple[str, ...]:
        """Its line of the table under `_HEADER`."""
        wrong = self.total("wrong") + sum(len(tally.miscounted) for tally in self.tallies)
        items = (self.total("items_in"), self.total("items_out"), self.total("lost"))
        counts = map(str, (self.injected, len(self.tallies), *items, self.doubled, wrong))
        return (self.fault, *counts, f"{self.stall_s:.1f} s", f"{self.bound_s:g} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject the faults and print figures; the exit code is 0 only if every promise was kept."""
    about, details = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=about, epilog=details)
    names = [*FAULTS, NEIGHBOURS_NAME]
    parser.add_argument(
        "faults", nargs="*", metavar="FAULT", help=f"default: all of {', '.join(names)}"
    )
    for option, default, about in (
        ("--items", 2000, "pictures in each job"),
        ("--seconds", 30, "duration of the test of each fault"),
        ("--every", 5, "seconds from one injection to the next"),
    ):
        about += " (default: %(default)s)"
        parser.add_argument(option, type=positive, default=default, help=about)
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.faults) - set(names):
        parser.error(f"no such fault: {', '.join(unknown)}; choose from {', '.join(names)}")
    stop_on_signals()
    reports: list[FaultReport] = []
    beside: list[NeighbourReport] = []
    failed: list[str] = []
    not_run: list[str] = []
    for name in chosen.faults or names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            if name == NEIGHBOURS_NAME:
                items = -(-chosen.items // NEIGHBOUR_SHARE)
                beside += [run_neighbour(kind, items, WORKERS) for kind in NEIGHBOURS]
            else:
                reports.append(run_fault(name, chosen.items, chosen.every, chosen.seconds))
        except ProgramMissing as error:
            not_run.append(f"NOT RUN: {name}: {error}")
        except (JobStalled, StartFailed, PiqueueApiError, RedisError, OSError) as error:
            failed.append(f"FAILED: {name}: {error}")
        except KeyboardInterrupt:
            return 130
    tables = ([summary(reports)] if reports else []) + ([table(beside)] if beside else [])
    print("\n\n".join([*tables, *failed, *not_run]))
    kept = [*(report.kept for report in reports), *(report.kept for report in beside)]
    return 0 if all(kept) and not failed else 1


def run_fault(name: str, items: int, every_s: float, seconds: float) -> FaultReport:
    """Inject a fault every `every_s` for `seconds` into a stack of its own.

    Jobs of `items` pictures run one after the other; the last one is waited for too.

    Raises:
        StartFailed: the stack does not start; ProgramMissing if this machine lacks a program.
        JobStalled: a job does not end.
        PiqueueApiError: the API does not come back.
    """
    fault = FAULTS[name]
    report = FaultReport(name, fault.bound_s)
    poisoned = frozenset({items // 2}) if fault.poisons else frozenset[int]()
    with (
        TemporaryDirectory(prefix="piqueue-chaos-") as folder,
        fault.stack(Path(folder), workers=WORKERS, env=ENV) as stack,
        PictureServer(poisoned=poisoned) as pictures,
        Client(stack.url) as client,
    ):
        sent = [Sent(pictures.url(index), pictures.sha256(index)) for index in range(items)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            job = client.submit_urls(item.url for item in sent)
            with Observer(stack.url, job.id) as observer:
                observer.wait_finished(1)
                while not observer.job_done and (time.monotonic() < until or not report.injected):
                    fault.inject(stack)
                    report.injected += 1
                    observer.pause(every_s)
                done = observer.wait_done(DONE_DEADLINE_S)
                report.stall_s = max(report.stall_s, observer.longest_stall_s())
            report.tallies.append(tally_job(client, done, sent))
        report.surplus_jobs = len(list(client.jobs())) - len(report.tallies)
    return report


def summary(reports: Sequence[FaultReport]) -> str:
    """Format the reports as a Markdown table, with totals, rejections and a verdict below."""
    tallies = [tally for report in reports for tally in report.tallies]
    rejected: Counter[RejectionCode] = sum((tally.rejected for tally in tallies), Counter())
    figures = {
        "faults injected": sum(report.injected for report in reports),
        "items in": sum(tally.items_in for tally in tallies),
        "items out": sum(tally.items_out for tally in tallies),
        "lost": sum(tally.lost for tally in tallies),
        "doubled": sum(report.doubled for report in reports),
        "longest stall (s)": round(max((report.stall_s for report in reports), default=0), 1),
        "rejected": ", ".join(f"{code} {count}" for code, count in rejected.items()) or "none",
    }
    lines = [markdown([_HEADER, *(report.row() for report in reports)]), ""]
    lines += (f"{name}: {value}" for name, value in figures.items())
    missed = [report.fault for report in reports if not report.kept]
    lines.append(f"NOT KEPT: {', '.join(missed)}" if missed else "every promise was kept")
    lines += (line for tally in tallies for line in tally.miscounted)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
