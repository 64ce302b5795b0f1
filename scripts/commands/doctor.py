"""Looks a Piqueue over, above all one that does not work, and says what to change."""

import argparse
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec

from piqueue.client import ClientSettings
from scripts.doctor.api import check_api
from scripts.doctor.check_result import Check, CheckResult, Level, problem
from scripts.doctor.consistency import check_settings
from scripts.doctor.machine import check_disk, check_files
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

It ends with 0 when all is well or there are warnings only, and with 1 when there is a problem."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks and print one line each; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="piqueue doctor",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", help="the API; else $PIQUEUE_URL, else http://127.0.0.1:8000")
    parser.add_argument("--api-key", metavar="KEY", help="better given as $PIQUEUE_API_KEY")
    parser.add_argument("--fetch", metavar="URL", help="a picture to download as a worker would")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(arguments)

    findings = list(examine(chosen.url or ClientSettings().url, chosen.api_key, chosen.fetch))
    ill = any(finding.level is Level.PROBLEM for finding in findings)
    if chosen.json:
        report = {"healthy": not ill, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            print(line(finding))
    return int(ill)


def examine(url: str, api_key: str | None, fetch: str | None) -> Iterator[CheckResult]:
    """Give what the checks find, in their order; the API is at `url`."""
    checks: dict[str, Check] = {"api": partial(check_api, url, api_key)}
    try:
        settings = load_settings()
    except SettingsInvalid as error:
        yield problem("settings", str(error), "correct it; what else reads settings is not checked")
        yield from run_all(checks)
        return
    checks = {
        "settings": partial(check_settings, settings),
        "redis": partial(check_redis, settings),
        "workers": partial(check_workers, settings),
        "keys": partial(check_keys, settings, url),
        "s3": partial(check_storage, settings),
        **checks,
        "open files": partial(check_files, settings),
        "disk": partial(check_disk, settings),
    }
    if fetch and find_spec("aiohttp") is None:
        yield problem("fetch", "aiohttp is not installed here", "run it where a worker runs")
    elif fetch:
        from scripts.doctor.fetch import check_fetch

        checks["fetch"] = partial(check_fetch, settings, fetch)
    yield from run_all(checks)


def run_all(checks: Mapping[str, Check], deadline_s: float = DEADLINE_S) -> Iterator[CheckResult]:
    """Run checks side by side; each has `deadline_s`, and one that hangs holds up no other."""
    ends_at = time.monotonic() + deadline_s
    running = {name: _start(name, check) for name, check in checks.items()}
    for name, found in running.items():
        try:
            while finding := found.get(timeout=max(0.0, ends_at - time.monotonic())):
                yield finding
        except queue.Empty:
            yield problem(
                name,
                f"did not answer within {deadline_s:g} s",
                "look for a firewall that drops what it should refuse, or a name server that hangs",
            )


def _start(name: str, check: Check) -> "queue.SimpleQueue[CheckResult | None]":
    """Run a check in a thread that does not keep this program from ending; None ends its finds."""
    found: queue.SimpleQueue[CheckResult | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            for finding in check():
                found.put(finding)
        except BaseException:
            found.put(problem(name, "the check itself failed", "report what stands above"))
            raise
        finally:
            found.put(None)

    threading.Thread(target=run, daemon=True).start()
    return found


def line(finding: CheckResult) -> str:
    """One line for people."""
    advice = f": {finding.advice}" if finding.advice else ""
    return f"{finding.level:<8} {finding.check}: {finding.text}{advice}"


if __name__ == "__main__":
    sys.exit(main())
