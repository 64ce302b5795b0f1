"""Download statistics for each host of a job: counted for each chunk, summed in the ledger."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

from worker.jobs.items import ItemResult, ItemSpec, RejectionCode, Stage

# Upper bounds of the response time histogram, in milliseconds.
BUCKETS_MS = (
    *(5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750),
    *(1000, 1500, 2000, 3000, 5000, 7500, 10_000, 15_000, 30_000, 60_000),
)
# The ledger lists the hosts of the largest weight and sums the others under OTHERS.
KEPT_HOSTS = 50
FAILURE_WEIGHT = 10
OTHERS = "*"
# The longest host name that DNS allows.
NAME_LENGTH = 253
_STATUSES = frozenset(int(status) for status in HTTPStatus)


@dataclass
class HostTally:
    """Outcomes of one host's URLs; `name` is None for the sum of the hosts not listed."""

    name: str | None
    ok: int = 0
    timeouts: int = 0
    other: int = 0
    http_status: dict[str, int] = field(default_factory=dict)
    # Responses by duration: one count for each bucket, and one for those above the last.
    answers: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))

    @classmethod
    def from_row(cls, name: str, row: list[Any]) -> Self:
        """Read the form kept in Redis."""
        return cls(None if name == OTHERS else name, *row)

    def to_row(self) -> list[Any]:
        """Write the form kept in Redis, which the ledger sums."""
        return [self.ok, self.timeouts, self.other, self.http_status, self.answers]

    @property
    def failed(self) -> int:
        """URLs that were not fetched."""
        return self.timeouts + self.other + sum(self.http_status.values())

    @property
    def weight(self) -> int:
        """The rank of a host, as in the ledger: busy and failing hosts come first."""
        return self.ok + FAILURE_WEIGHT * self.failed

    @property
    def p95_ms(self) -> int | None:
        """The 95th percentile of the response time, interpolated within its bucket."""
        rank = 0.95 * sum(self.answers)
        low = 0
        for high, count in zip(BUCKETS_MS, self.answers, strict=False):
            if rank and count >= rank:
                return round(low + (high - low) * rank / count)
            rank -= count
            low = high
        return low if self.answers[-1] else None

    def add(self, result: ItemResult) -> None:
        """Count the outcome of one URL."""
        rejection = result.rejection
        if rejection is None or rejection.stage is not Stage.FETCH:
            self.ok += 1
        elif rejection.http_status in _STATUSES:
            status = str(rejection.http_status)
            self.http_status[status] = self.http_status.get(status, 0) + 1
        elif rejection.code is RejectionCode.FETCH_TIMEOUT:
            self.timeouts += 1
            return
        else:
            self.other += 1
            return
        took_ms = result.timings.fetch_ms
        self.answers[sum(took_ms > high for high in BUCKETS_MS)] += 1

    def absorb(self, tally: "HostTally") -> None:
        """Add another host's counts."""
        self.ok += tally.ok
        self.timeouts += tally.timeouts
        self.other += tally.other
        for status, count in tally.http_status.items():
            self.http_status[status] = self.http_status.get(status, 0) + count
        self.answers = [sum(pair) for pair in zip(self.answers, tally.answers, strict=True)]


def count_hosts(pairs: Iterable[tuple[ItemSpec, ItemResult]]) -> str:
    """Count the fetched items by host, as JSON for the ledger; empty if nothing was fetched."""
    tallies: dict[str, HostTally] = {}
    for spec, result in pairs:
        failed = result.rejection and result.rejection.stage is Stage.FETCH
        fetched = failed or (result.image and not result.rescored)
        if spec.url and fetched and (name := host_of(spec.url)):
            tallies.setdefault(name, HostTally(name)).add(result)
    rows = {name: tally.to_row() for name, tally in tallies.items()}
    return json.dumps(rows, separators=(",", ":")) if rows else ""


def read_hosts(packed: str) -> tuple[HostTally, ...]:
    """Read the sums of the ledger, in no order."""
    return tuple(HostTally.from_row(name, row) for name, row in json.loads(packed).items())


def heaviest_hosts(tallies: Iterable[HostTally], most: int) -> list[HostTally]:
    """The `most` hosts of the largest weight, most failures first, and the sum of the others."""
    ranked = sorted(tallies, key=lambda tally: (tally.name is not None, tally.weight), reverse=True)
    listed = [tally for tally in ranked[:most] if tally.name is not None]
    listed.sort(key=lambda tally: (-tally.failed, -tally.ok, tally.name))
    rest = HostTally(None)
    for tally in ranked[len(listed) :]:
        rest.absorb(tally)
    return [*listed, rest] if ranked[len(listed) :] else listed


def host_of(url: str) -> str:
    """The host of a URL, safe for JSON; empty if it has none."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return ""
    return host[:NAME_LENGTH].encode(errors="replace").decode()
