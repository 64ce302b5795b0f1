"""Checks a Piqueue installation, running or not, and says what to change."""

import argparse
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec

from piqueue.commands.terminal import run
from piqueue.connection import ClientSettings
from scripts.commands.parser import command_parser
from scripts.doctor.api import check_api
from scripts.doctor.check_result import Check, CheckResult, Level, problem
from scripts.doctor.consistency import check_settings
from scripts.doctor.drift import check_drift
from scripts.doctor.machine import check_disk, check_files, check_uploads
from scripts.doctor.redis import check_redis
from scripts.doctor.storage import check_storage
from scripts.doctor.workers import check_keys, check_workers
from worker.jobs.errors import SettingsInvalid
from worker.jobs.settings import load_settings

DEADLINE_S = 20.0
_EXAMPLES = """\
It reads the same PIQUEUE_ variables as the API and the workers, so run it where they run:
  piqueue doctor
  piqueue doctor --fetch https://example.com/photo.jpg --json
  docker compose run --rm worker piqueue doctor --url http://api:8000

The exit code is 1 if there is a problem, otherwise 0."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks and print one line for each result; gives the exit code."""
    parser = command_parser("doctor", __doc__, _EXAMPLES)
    parser.add_argument("--url", help="the API (default: $PIQUEUE_URL, or http://127.0.0.1:8000)")
    parser.add_argument(
        "--api-key", metavar="KEY", help="default: $PIQUEUE_API_KEY, which is safer"
    )
    parser.add_argument(
        "--fetch", metavar="URL", help="a picture to download with the rules of a worker"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args(arguments)
    return run(parser.prog, lambda: _run(chosen))


def _run(chosen: argparse.Namespace) -> int:
    api = ClientSettings.load(chosen.url, chosen.api_key)
    results = list(run_checks(api.url, chosen.api_key, chosen.fetch))
    healthy = all(result.level is not Level.PROBLEM for result in results)
    if chosen.json:
        report = {"healthy": healthy, "findings": [asdict(result) for result in results]}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(*map(line, results), sep="\n")
    return 0 if healthy else 1


def run_checks(url: str, api_key: str | None, fetch: str | None) -> Iterator[CheckResult]:
    """Give the results of all checks, in their order; the API is at `url`."""
    checks: dict[str, Check] = {"api": partial(check_api, url, api_key)}
    try:
        settings = load_settings()
    except SettingsInvalid as error:
        yield problem(
            "settings", str(error), "correct it; the checks that need settings did not run"
        )
        yield from run_all(checks)
        return
    checks = {
        "settings": partial(check_settings, settings),
        "redis": partial(check_redis, settings),
        "workers": partial(check_workers, settings),
        "drift": partial(check_drift, settings),
        "keys": partial(check_keys, settings, url),
        "s3": partial(check_storage, settings),
        **checks,
        "open files": partial(check_files, settings),
        "disk": partial(check_disk, settings),
        "uploads": partial(check_uploads, settings),
    }
    if fetch and find_spec("aiohttp") is None:
        yield problem("fetch", "aiohttp is not installed here", "run doctor where a worker runs")
    elif fetch:
        from scripts.doctor.fetch import check_fetch

        checks["fetch"] = partial(check_fetch, settings, fetch)
    yield from run_all(checks)


def run_all(checks: Mapping[str, Check], deadline_s: float = DEADLINE_S) -> Iterator[CheckResult]:
    """Run checks concurrently; each has `deadline_s`, and one that hangs delays no other."""
    ends_at = time.monotonic() + deadline_s
    running = {name: _start(name, check) for name, check in checks.items()}
    for name, results in running.items():
        try:
            while result := results.get(timeout=max(0.0, ends_at - time.monotonic())):
                yield result
        except queue.Empty:
            yield problem(
                name,
                f"did not answer within {deadline_s:g} s",
                "look for a firewall that drops packets, or a name server that hangs",
            )


def _start(name: str, check: Check) -> "queue.SimpleQueue[CheckResult | None]":
    """Run a check in a thread that does not delay the exit; None marks the end of its results."""
    results: queue.SimpleQueue[CheckResult | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            for result in check():
                results.put(result)
        except BaseException:
            results.put(problem(name, "the check itself failed", "report the error above as a bug"))
            raise
        finally:
            results.put(None)

    threading.Thread(target=run, daemon=True).start()
    return results


def line(result: CheckResult) -> str:
    """Format one result for people."""
    advice = f": {result.advice}" if result.advice else ""
    return f"{result.level:<8} {result.check}: {result.text}{advice}"
