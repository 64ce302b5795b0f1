"""How fast a job of URLs is scored, against bare inference and against the tutorial's way."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.benchmarks.alternating import in_turn, ratios
from scripts.benchmarks.connection import Connection
from scripts.benchmarks.figures import Figure
from scripts.benchmarks.programs import cpu_s, output_of, serving
from scripts.benchmarks.workbench import Workbench

TUTORIAL_CLIENTS = 8


def throughput(bench: Workbench) -> Iterator[Figure]:
    """Compare in turn: the service and the same work bare, then the service and the tutorial."""
    scale = bench.scale
    with bench.image_server() as urls, bench.stack() as stack:
        spent: list[tuple[float, float]] = []
        pids = (*stack.workers, stack.api_pid or 0, stack.redis_pid or 0)

        def service() -> float:
            return score_urls(stack.url, urls)

        def metered() -> float:
            before_s = sum(map(cpu_s, pids))
            pictures_per_s = service()
            spent.append((sum(map(cpu_s, pids)) - before_s, 0))
            return pictures_per_s

        def bare() -> float:
            pace = _pace("scripts.benchmarks.baseline", str(bench.pictures))
            spent[-1] = (spent[-1][0], pace["cpu_s"])
            return pace["pictures_per_s"]

        score_urls(stack.url, urls[: len(urls) // 10])
        yield _figure("throughput / bare", in_turn(metered, bare, scale.rounds), 0.75)
        note = "what 0.75 needs where other programs take the cores, too"
        yield Figure.of("CPU time a picture / bare", "x", ratios(spent), ("<=", 1 / 0.75), note)
        log_path = bench.new_folder("tutorial") / "log"
        with serving(log_path, "scripts.benchmarks.tutorial") as tutorial_url:

            def tutorial() -> float:
                return _tutorial_pace(f"{tutorial_url}/scorefile/", bench.pictures, scale.tutorial)

            yield _figure("throughput / tutorial", in_turn(service, tutorial, scale.rounds), 5)


def score_urls(url: str, urls: list[str]) -> float:
    """Submit a job to a Piqueue and wait until it is done; gives its pictures a second.

    Raises:
        RuntimeError: a picture failed.
    """
    with Connection(url) as connection:
        started = time.perf_counter()
        job = connection.post("/jobs", {"urls": urls})
        while not job["done"]:
            job = connection.get(f"/jobs/{job['id']}?wait=60&results=false")
        taken_s = time.perf_counter() - started
    if job["counts"]["succeeded"] != len(urls):
        raise RuntimeError(f"not all pictures were scored: {job['counts']} {job['failures']}")
    return len(urls) / taken_s


def _tutorial_pace(url: str, pictures: Path, count: int) -> float:
    clients = str(TUTORIAL_CLIENTS)
    pace = _pace(
        "scripts.benchmarks.posting",
        url,
        str(pictures),
        "--count",
        str(count),
        "--clients",
        clients,
    )
    return pace["pictures_per_s"]


def _pace(module: str, *arguments: str) -> dict[str, float]:
    pace: dict[str, float] = json.loads(output_of("-m", module, *arguments))
    return pace


def _figure(name: str, pairs: list[tuple[float, float]], bound: float) -> Figure:
    ours, theirs = (sorted(paces)[len(paces) // 2] for paces in zip(*pairs, strict=True))
    note = f"{ours:.0f} against {theirs:.0f} pictures/s"
    return Figure.of(name, "x", ratios(pairs), (">=", bound), note)
