"""Hundreds of hostile answers, fetched in one call with good neighbours."""

import socket
from ipaddress import ip_network

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.worker.fetching.hostile_answers import (
    GOOD,
    GOOD_ANSWER,
    HostileAnswer,
    HostileHosts,
    hostile_answers,
)
from tests.worker.fetching.site import Site
from worker.fetching.fetcher import Fetcher
from worker.fetching.session import INTERIM_ANSWERS, FetchLimits, Outcome
from worker.jobs.items import Rejection, RejectionCode

# Enough slots for all slow answers at once, so that the test takes one deadline.
LIMITS = FetchLimits(
    timeout_s=10,
    max_bytes=100_000,
    concurrency=256,
    per_host=32,
    allow_networks=(ip_network("127.0.0.1/32"),),
)
# Beyond the deadline, on a machine under load.
SLACK_S = 10
LONGEST_DETAIL = 120


class Names(AbstractResolver):
    """Knows one name, of a private address."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host != "private.example":
            raise socket.gaierror(socket.EAI_NONAME, "from the test")
        return [
            ResolveResult(
                hostname=host, host="10.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        pass


def check(outcome: Outcome) -> None:
    assert outcome.elapsed_ms < (LIMITS.timeout_s + SLACK_S) * 1000
    if isinstance(outcome.payload, Rejection):
        assert outcome.payload.code in set(RejectionCode)
        assert len(outcome.payload.detail) <= LONGEST_DETAIL
        assert outcome.payload.detail.isascii()
        assert "could not be read" not in outcome.payload.detail, "an unexpected exception"
    else:
        assert 0 < len(outcome.payload) <= LIMITS.max_bytes


def is_good_or_paused(outcome: Outcome) -> bool:
    if isinstance(outcome.payload, Rejection):
        return outcome.payload.http_status in (429, 503)
    return outcome.payload == GOOD


def test_a_hostile_answer_costs_its_own_item_only(
    dialled: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    answers = list(hostile_answers(seed=6, mutant_count=150))
    with HostileHosts(answers) as hosts, Site() as site:
        fetcher = Fetcher(LIMITS, Names())
        urls = []
        for n, host in enumerate(hosts.urls):
            urls += [f"{host}/hostile", site.url(f"/{n}")]
        outcomes = dict(fetcher.fetch_all(urls))
        later = dict(fetcher.fetch_all([f"{host}/good" for host in hosts.urls]))
        fetcher.close()
    for n, answer in enumerate(answers):
        check(outcomes[2 * n])
        assert outcomes[2 * n + 1].payload == b"/%d" % n, f"the neighbour of {answer.name}"
        if answer.scheme == "http":
            assert is_good_or_paused(later[n]), f"the host of {answer.name}"
    assert len(answers) > 500
    assert {outcomes[2 * n].label for n in range(len(answers))} == {
        "fetched", "fetch_blocked_address", "fetch_connection", "fetch_dns", "fetch_http_status",
        "fetch_redirects", "fetch_timeout", "fetch_too_large", "not_an_image",
    }  # fmt: skip
    assert set(dialled) == {"127.0.0.1"}
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_a_flood_of_interim_answers_ends_at_once() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    counts = (INTERIM_ANSWERS, INTERIM_ANSWERS + 1)
    answers = [HostileAnswer("", interim * count + GOOD_ANSWER) for count in counts]
    with HostileHosts(answers) as hosts:
        fetcher = Fetcher(LIMITS)
        outcomes = dict(fetcher.fetch_all([f"{url}/hostile" for url in hosts.urls]))
        fetcher.close()
    assert outcomes[0].payload == GOOD
    assert isinstance(outcomes[1].payload, Rejection)
    assert outcomes[1].payload.code == RejectionCode.FETCH_CONNECTION
    assert outcomes[1].payload.detail == "answered with more than 16 statuses of 1xx"
