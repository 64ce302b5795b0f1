"""Builds the images, runs jobs through the composed stack and through one container, tears down.

Needs a Docker engine with Compose, or a stand-in: a program that does `build`, `up` and `down` for
this project, named by --images or $IMAGES. Without either it says so and exits with 69.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from api.schemas import JobOut
from piqueue.client import Client, PiqueueApiError
from piqueue.commands.sources import find_pictures
from scripts.images.engines import OURS, Container, Engine, EngineFailed, find_engine
from scripts.local.serve import SAMPLES, stop_on_signals

UNAVAILABLE = 69
ALLOW_NO_KEYS = "PIQUEUE_ALLOW_NO_KEYS"
LIMITS_MB = {"piqueue-api": 200, "piqueue-worker": 350}
# Modules that an image must not carry: the API never sees pixels, TensorFlow is for GPUs.
ABSENT = {
    "piqueue-api": ("tensorflow", "numpy", "PIL", "ai_edge_litert", "pip"),
    "piqueue-worker": ("tensorflow", "pip"),
}
TOOLS = ("gcc", "cc", "make", "git", "curl")
COPIES = 120
# A chunk whose worker was killed is tried again once its lease of 30 s has run out.
JOB_DEADLINE_S = 180
READY_DEADLINE_S = 60
GRACE_S = 60


class SmokeFailed(Exception):
    """Something is not as it must be; the text says what."""


def main() -> int:
    """Run all of it and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/smoke_images",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    given = os.environ.get("IMAGES")
    parser.add_argument(
        "--images",
        type=Path,
        default=Path(given) if given else None,
        help="a stand-in for the engine",
    )
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--only-build", action="store_true", help="build the images, run nothing")
    steps.add_argument("--built", action="store_true", help="the images are built already")
    chosen = parser.parse_args()
    stop_on_signals()
    engine = find_engine(chosen.images)
    if engine is None:
        print(
            "scripts/smoke_images DID NOT RUN: no Docker engine with Compose on this machine",
            file=sys.stderr,
        )
        return UNAVAILABLE
    try:
        if not chosen.built:
            with timed("build"):
                engine.build()
        if not chosen.only_build:
            smoke(engine)
    except KeyboardInterrupt:
        return 130
    except (SmokeFailed, EngineFailed, PiqueueApiError, httpx2.HTTPError, OSError) as error:
        print(f"scripts/smoke_images: {error}", file=sys.stderr)
        return 1
    return 0


def smoke(engine: Engine) -> None:
    """Measure the images, compose them, scale, kill, serve in one container.

    Raises:
        SmokeFailed: a result is not as it must be.
        EngineFailed: the engine did not do what it was told.
    """
    for image in LIMITS_MB:
        inspect(engine, image)
    try:
        with timed("up"):
            engine.up()
        with Client(engine.url) as client, timed("two workers, one killed"):
            lose_a_worker(engine, client)
    finally:
        with timed("down"):
            engine.down()
    with timed("one container"):
        serve_alone(engine)


def inspect(engine: Engine, image: str) -> None:
    """Print what an image weighs, and look for what it must not carry."""
    whole, ours = (
        int(engine.inside(image, "du", "-skx", path).split()[0]) * 1024 / 1e6
        for path in ("/", OURS)
    )
    print(f"{image}: our layers {ours:.0f} MB of {whole:.0f} MB", flush=True)
    check(ours < LIMITS_MB[image], f"{image} is over its {LIMITS_MB[image]} MB")
    find = "import importlib.util as u, sys; print(*filter(u.find_spec, sys.argv[1:]))"
    carried = engine.inside(image, "python", "-c", find, *ABSENT[image]).split()
    check(not carried, f"{image} carries {carried}")
    which = "for tool; do command -v $tool; done; true"
    tools = engine.inside(image, "sh", "-c", which, "sh", *TOOLS).split()
    check(not tools, f"{image} carries {tools}")


def lose_a_worker(engine: Engine, client: Client) -> None:
    """Kill one of two workers in the middle of a job; no item may be missing or another's."""
    expect(client.ready, "the API is not ready")
    second = engine.second_worker()
    try:
        expect(lambda: workers(client) == 2, "the second worker is not heard of", second)
        job = submit(client, COPIES)
        total = job.counts.total
        expect(lambda: "chunk_committed" in second.log(), "the second worker does nothing", second)
        scored = client.job(job.id).counts.succeeded
        check(scored < total / 2, f"{scored} of {total} were scored before a worker was killed")
    finally:
        second.kill()
    print(f"killed a worker at {scored} of {total}", flush=True)
    read_through(client, job, COPIES)
    expect(lambda: workers(client) == 1, "the killed worker lives on")


def serve_alone(engine: Engine) -> None:
    """Run all of Piqueue in one container: it refuses strangers, scores, and ends in peace."""
    refusing = engine.serve({})
    try:
        code = refusing.wait(READY_DEADLINE_S)
        told = ALLOW_NO_KEYS in refusing.log()
        check(code == 1 and told, f"without keys it should refuse strangers\n{refusing.log()}")
    finally:
        refusing.kill()
    serving = engine.serve({ALLOW_NO_KEYS: "true"})
    try:
        with Client(serving.url) as client:
            expect(client.ready, "it does not become ready", serving)
            read_through(client, submit(client, 1), 1)
        serving.terminate()
        check(serving.wait(GRACE_S) == 0, f"it does not end in peace\n{serving.log()}")
    finally:
        serving.kill()


def submit(client: Client, copies: int) -> JobOut:
    """Submit each sample photo so many times."""
    photos = find_pictures(SAMPLES)
    return client.submit_files(
        {f"{copy}/{photo.name}": photo for copy in range(copies) for photo in photos}
    )


def read_through(client: Client, job: JobOut, copies: int) -> None:
    """Wait for the job and compare every score with what the photo shows."""
    job = client.wait(job.id, JOB_DEADLINE_S)
    with (SAMPLES / "labels.csv").open() as file:
        shown = {
            row.pop("name"): sorted(label for label, mark in row.items() if mark == "1")
            for row in csv.DictReader(file)
        }
    results = list(client.results(job.id))
    check(len(results) == copies * len(shown), f"{len(results)} results of {job.counts.total}")
    for result in results:
        name = result.id.partition("/")[2]
        labels = None if result.labels is None else sorted(result.labels)
        check(labels == shown[name], f"{result.id}: {labels or result.error}, not {shown[name]}")
    print(f"{job.id}: {job.status}, {len(results)} pictures, each with its labels", flush=True)


def workers(client: Client) -> int:
    """Workers that the API has heard of lately."""
    answer = httpx2.get(f"{client.url}/readyz", trust_env=False)
    return int(answer.json().get("workers", 0))


def expect(
    condition: Callable[[], bool], otherwise: str, container: Container | None = None
) -> None:
    """Wait until a condition holds.

    Raises:
        SmokeFailed: it does not in time.
    """
    deadline = time.monotonic() + READY_DEADLINE_S
    while not condition():
        log = f"\n{container.log()}" if container else ""
        check(time.monotonic() < deadline, otherwise + log)
        time.sleep(0.2)


def check(condition: bool, otherwise: str) -> None:
    """Raise SmokeFailed unless the condition holds."""
    if not condition:
        raise SmokeFailed(otherwise)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long a step takes."""
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
