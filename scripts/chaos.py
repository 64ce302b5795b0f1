"""Does every fault to a Piqueue of its own on this machine, again and again, and counts the items.

Each fault meets jobs of its own, which go on until its time is over and each of them is done. The
exit code is 0 only if no item was lost, doubled or given a wrong result, no count was off, and no
job stood still for longer than is promised.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from piqueue.client import Client, PiqueueApiError
from scripts.faults.injectors import FAULTS, POISON_PATH
from scripts.faults.observer import Observer, StandsStill
from scripts.faults.pictures import PictureServer
from scripts.faults.tally import Account, Sent, account
from scripts.local.serve import positive, stop_on_signals
from scripts.local.stack import Stack
from scripts.local.supervised_process import StartFailed
from worker.jobs.items import RejectionCode

ENV = {"PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32", "PYTHONPATH": str(POISON_PATH)}
WORKERS = 2
READY_DEADLINE_S = 60
DONE_DEADLINE_S = 600
_HEAD = ("fault", "injected", "jobs", "in", "out", "lost", "doubled", "wrong", "stall", "bound")


@dataclass
class Tally:
    """What came of one fault; `stall_s` is the longest time in which no item was finished."""

    fault: str
    bound_s: float
    injected: int = 0
    accounts: list[Account] = field(default_factory=list)
    stall_s: float = 0
    # Jobs that there are beyond those that were submitted.
    surplus_jobs: int = 0

    @property
    def kept(self) -> bool:
        """Whether the fault was met, and cost nothing but time, no more of it than is promised."""
        balanced = all(found.balanced for found in self.accounts) and not self.surplus_jobs
        return self.injected > 0 and balanced and self.stall_s <= self.bound_s

    @property
    def rejected(self) -> Counter[RejectionCode]:
        """The rejections of all jobs by code."""
        return sum((found.rejected for found in self.accounts), Counter())

    def row(self) -> tuple[str, ...]:
        """Lay it out under `_HEAD`."""
        of = self.accounts
        sums = (
            sum(found.items_in for found in of),
            sum(found.items_out for found in of),
            sum(found.lost for found in of),
            sum(found.doubled for found in of) + self.surplus_jobs,
            sum(found.wrong + len(found.miscounted) for found in of),
        )
        counted = map(str, (self.injected, len(of), *sums))
        return (self.fault, *counted, f"{self.stall_s:.1f} s", f"{self.bound_s:g} s")


@dataclass(frozen=True)
class Plan:
    """How hard to try: jobs of `items` pictures, a fault every `every_s`, for `seconds` a fault."""

    items: int
    every_s: float
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults and print the figures; the exit code is 0 only if all promises were kept."""
    about, details = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=about, epilog=details)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)}")
    parser.add_argument(
        "--items", type=positive, default=2000, help="pictures in a job (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=positive, default=30, help="how long each fault is done (%(default)s)"
    )
    parser.add_argument(
        "--every", type=positive, default=5, help="seconds from one to the next (%(default)s)"
    )
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    stop_on_signals()
    plan = Plan(chosen.items, chosen.every, chosen.seconds)
    tallies: list[Tally] = []
    try:
        for name in chosen.faults or FAULTS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            tallies.append(suffer(name, plan))
    except (StandsStill, StartFailed, PiqueueApiError, OSError) as error:
        print(f"scripts/chaos: {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(table(tallies))
    return 0 if all(tally.kept for tally in tallies) else 1


def suffer(name: str, plan: Plan) -> Tally:
    """Do one fault to a stack of its own for the time planned, and see every job to its end.

    Raises:
        StartFailed: the stack does not come up.
        StandsStill: a job does not end.
        PiqueueApiError: the API stays away.
    """
    fault = FAULTS[name]
    tally = Tally(name, fault.bound_s)
    poisoned = frozenset({plan.items // 2}) if fault.poisons else frozenset[int]()
    with (
        TemporaryDirectory(prefix="piqueue-chaos-") as folder,
        Stack(Path(folder), workers=WORKERS, env=ENV) as stack,
        PictureServer(poisoned=poisoned) as pictures,
        Client(stack.url) as client,
    ):
        until = time.monotonic() + plan.seconds
        while time.monotonic() < until:
            tally.accounts.append(_one_job(tally, stack, pictures, client, plan, until))
        tally.surplus_jobs = len(list(client.jobs())) - len(tally.accounts)
    return tally


def _one_job(
    tally: Tally,
    stack: Stack,
    pictures: PictureServer,
    client: Client,
    plan: Plan,
    until: float,
) -> Account:
    """Submit a job, do the fault while it runs, and see it to its end."""
    sent = [Sent(pictures.url(index), pictures.sha256(index)) for index in range(plan.items)]
    job = client.submit_urls(item.url for item in sent)
    with Observer(stack.url, job.id) as watch:
        watch.until(1)
        while not watch.over and (time.monotonic() < until or not tally.injected):
            FAULTS[tally.fault].inject(stack)
            tally.injected += 1
            watch.rest(plan.every_s)
        done = watch.done(DONE_DEADLINE_S)
        tally.stall_s = max(tally.stall_s, watch.longest_stall_s())
    return account(client, done, sent)


def table(tallies: Sequence[Tally]) -> str:
    """Lay the figures out as a Markdown table, with the sums below and what was rejected."""
    rows = [_HEAD, *(tally.row() for tally in tallies)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in rows
    ]
    accounts = [found for tally in tallies for found in tally.accounts]
    rejected: Counter[RejectionCode] = sum((tally.rejected for tally in tallies), Counter())
    figures = {
        "faults injected": sum(tally.injected for tally in tallies),
        "items in": sum(found.items_in for found in accounts),
        "items out": sum(found.items_out for found in accounts),
        "lost": sum(found.lost for found in accounts),
        "doubled": sum(found.doubled for found in accounts)
        + sum(tally.surplus_jobs for tally in tallies),
        "longest stall (s)": round(max((tally.stall_s for tally in tallies), default=0), 1),
        "rejected": ", ".join(f"{code} {count}" for code, count in rejected.items()) or "none",
    }
    missed = [tally.fault for tally in tallies if not tally.kept]
    lines += ["", *(f"{name}: {value}" for name, value in figures.items())]
    lines.append(f"NOT KEPT: {', '.join(missed)}" if missed else "every promise was kept")
    for found in accounts:
        lines += found.miscounted
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
