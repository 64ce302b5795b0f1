"""Builds the images and runs jobs in the Compose stack and in a single container.

Needs a Docker engine with Compose, or a stand-in: a program that does `build`, `up` and `down` for
this project, named by --images or $IMAGES. Without either it exits with 69.
"""

import argparse
import csv
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pillow_heif
from PIL import Image

from piqueue import Client, Job, JobOptions, PiqueueApiError
from piqueue.commands.pictures import find_pictures
from scripts.audit import read_pins
from scripts.images.engines import APPLICATION, Container, Engine, EngineFailed, find_engine
from scripts.local.serve import SAMPLES, stop_on_signals

UNAVAILABLE = 69
ALLOW_NO_KEYS = "PIQUEUE_ALLOW_NO_KEYS"
LIMITS_MB = {"piqueue-api": 200, "piqueue-worker": 350}
# Modules that an image must not contain: the API never sees pixels, TensorFlow is for GPUs.
ABSENT = {
    "piqueue-api": ("tensorflow", "numpy", "PIL", "ai_edge_litert", "pip"),
    "piqueue-worker": ("tensorflow", "pip"),
}
TOOLS = ("gcc", "cc", "make", "git", "curl")
SETUID = ("find", "/", "-xdev", "-type", "f", "-perm", "/6000")
SBOM = f"{APPLICATION}/sbom.cdx.json"
# Copies the newest bundled model of scenes to another name, $1.
COPY_A_MODEL = """
set -e
mkdir /tmp/$1
cp -r "$(ls -dv "${PYTHONPATH}"/model/bundled/scenes/* | tail -n 1)" /tmp/$1/1
python - /tmp/$1/1/card.json $1 <<'END'
import json, pathlib, sys

path = pathlib.Path(sys.argv[1])
card = json.loads(path.read_text())
path.write_text(json.dumps(card | {"name": sys.argv[2], "version": "1"}))
END
"""
ADD_A_MODEL = f"{COPY_A_MODEL} piqueue models add /tmp/$1/1"
# Uploads the model $1 as a zip file, and prints its hash and an address of it.
UPLOAD_A_MODEL = f"""
{COPY_A_MODEL}
exec python - $1 <<'END'
import hashlib, io, pathlib, sys, zipfile
from worker.jobs.s3 import Folder
from worker.jobs.settings import load_settings

packed = io.BytesIO()
with zipfile.ZipFile(packed, "w") as archive:
    for file in pathlib.Path("/tmp", sys.argv[1], "1").iterdir():
        archive.write(file, file.name)
folder = Folder.open(load_settings(), load_settings().registry_url)
folder.put("model.zip", packed.getvalue())
print(hashlib.sha256(packed.getvalue()).hexdigest(), folder.presign("model.zip", 3600))
END
"""
COPIES = 120
# A chunk whose worker was killed is tried again once its lease of 30 s has run out.
JOB_DEADLINE_S = 180
READY_DEADLINE_S = 60
GRACE_S = 60


class SmokeFailed(Exception):
    """A result is not as expected; the text says what is wrong."""


def main() -> int:
    """Run all steps and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/smoke_images",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    images = os.environ.get("IMAGES") or None
    parser.add_argument("--images", type=Path, default=images, help="a stand-in for the engine")
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--only-build", action="store_true", help="build the images, run nothing")
    steps.add_argument("--built", action="store_true", help="use the images that exist")
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
    """Inspect the images, run the stack and kill a worker, then serve from one container.

    Raises:
        SmokeFailed: a result is not as expected.
        EngineFailed: a command of the engine failed.
    """
    for image in LIMITS_MB:
        inspect(engine, image)
    try:
        with timed("up"):
            engine.up()
        with Client(engine.url) as client, timed("two workers, one killed"):
            lose_a_worker(engine, client)
        with Client(engine.url) as client, timed("a model added"):
            add_a_model(engine, client)
        with Client(engine.url) as client, timed("a registry on S3, and a model by its URL"):
            use_s3(engine, client)
    finally:
        with timed("down"):
            engine.down()
    with timed("one container"):
        serve_from_one_container(engine)


def inspect(engine: Engine, image: str) -> None:
    """Print the size of an image, and check that it contains nothing that it must not."""
    total_mb, ours_mb = (
        int(engine.inside(image, "du", "-skx", path).split()[0]) * 1024 / 1e6
        for path in ("/", APPLICATION)
    )
    print(f"{image}: our layers {ours_mb:.0f} MB of {total_mb:.0f} MB", flush=True)
    check(ours_mb < LIMITS_MB[image], f"{image} exceeds its {LIMITS_MB[image]} MB")
    find = "import importlib.util as u, sys; print(*filter(u.find_spec, sys.argv[1:]))"
    modules = engine.inside(image, "python", "-c", find, *ABSENT[image]).split()
    check(not modules, f"{image} contains {modules}")
    which = "for tool; do command -v $tool; done; true"
    tools = engine.inside(image, "sh", "-c", which, "sh", *TOOLS).split()
    check(not tools, f"{image} contains {tools}")
    privileged = engine.inside(image, *SETUID).split()
    check(not privileged, f"{image} contains setuid programs: {privileged}")
    show = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    lines = engine.inside(image, "python", "-c", show).splitlines()
    installed = {canonical(*line.split()) for line in lines}
    check_sbom(image, json.loads(engine.inside(image, "cat", SBOM)), installed)
    check_pins(image, installed)


def check_sbom(image: str, sbom: dict[str, Any], installed: set[str]) -> None:
    """Compare the components of an SBOM with what is installed."""
    components = [sbom["metadata"]["component"], *sbom["components"]]
    listed = {canonical(one["name"], one["version"]) for one in components}
    check(listed == installed, f"{image}: the SBOM is wrong about {sorted(listed ^ installed)}")
    print(f"{image}: {len(listed)} components in {SBOM}", flush=True)


def check_pins(image: str, installed: set[str]) -> None:
    """Check that `scripts.audit` audits what is installed."""
    pins = {canonical(*pin.split("==")) for pin in read_pins()}
    unpinned = {one for one in installed - pins if not one.startswith("piqueue")}
    check(not unpinned, f"{image} contains versions that are not pinned: {sorted(unpinned)}")


def canonical(name: str, version: str) -> str:
    """Give `name==version` with the name as a package index spells it."""
    return f"{re.sub('[-_.]+', '-', name).lower()}=={version}"


def lose_a_worker(engine: Engine, client: Client) -> None:
    """Kill one of two workers in the middle of a job; every item must still get its own result."""
    expect(client.ready, "the API is not ready")
    second = engine.second_worker()
    try:
        expect(lambda: workers(client) == 2, "the second worker sends no heartbeat", second)
        job = submit(client, COPIES)
        total = job.counts.total
        expect(
            lambda: "chunk_committed" in second.log(), "the second worker commits no chunk", second
        )
        scored = client.job(job.id).counts.succeeded
        check(scored < total / 2, f"{scored} of {total} were scored before a worker was killed")
    finally:
        second.kill()
    print(f"killed a worker at {scored} of {total}", flush=True)
    check_results(client, job, COPIES)
    expect(lambda: workers(client) == 1, "the killed worker still counts as alive")


def add_a_model(engine: Engine, client: Client) -> None:
    """Add a model from within the stack; the API and a worker must find it in their volume."""
    print(engine.in_stack("sh", "-c", ADD_A_MODEL, "sh", "added").strip(), flush=True)
    second = engine.second_worker()
    try:
        expect(lambda: workers(client) == 2, "the second worker sends no heartbeat", second)
        check_results(client, submit(client, 1, model="added@1"), 1)
    finally:
        second.kill()


def use_s3(engine: Engine, client: Client) -> None:
    """Add a model to a registry on S3, and name another one by its URL; jobs must use both."""
    settings = engine.start_s3()
    printed = engine.in_stack("sh", "-c", ADD_A_MODEL, "sh", "stored", settings=settings)
    print(printed.strip(), flush=True)
    printed = engine.in_stack("sh", "-c", UPLOAD_A_MODEL, "sh", "linked", settings=settings)
    sha256, url = printed.split()[-2:]
    engine.restart(settings | {"PIQUEUE_MODEL_URL": url, "PIQUEUE_MODEL_SHA256": sha256})
    expect(client.ready, "the API is not ready")
    for model in ("stored@1", "linked@1"):
        check_results(client, submit(client, 1, model=model), 1)


def serve_from_one_container(engine: Engine) -> None:
    """Serve from one container: it requires API keys, scores, and exits cleanly on SIGTERM."""
    refusing = engine.serve({})
    try:
        code = refusing.wait(READY_DEADLINE_S)
        explained = ALLOW_NO_KEYS in refusing.log()
        check(code == 1 and explained, f"without keys it must not start\n{refusing.log()}")
    finally:
        refusing.kill()
    serving = engine.serve({ALLOW_NO_KEYS: "true"})
    try:
        with Client(serving.url) as client:
            expect(client.ready, "it does not become ready", serving)
            check_results(client, submit(client, 1), 1)
            score_heic(client)
        serving.terminate()
        check(serving.wait(GRACE_S) == 0, f"it does not exit cleanly\n{serving.log()}")
    finally:
        serving.kill()


def score_heic(client: Client) -> None:
    """Submit a photo as HEIC, which must have the labels of its JPEG."""
    pillow_heif.register_heif_opener()
    with tempfile.TemporaryDirectory() as folder:
        photo = SAMPLES / "beach.jpg"
        heic = Path(folder, "beach.heic")
        with Image.open(photo) as picture:
            picture.save(heic, quality=95)
        job = client.wait(
            client.submit_files({path.name: path for path in (photo, heic)}).id, JOB_DEADLINE_S
        )
    by_id = {result.id: result for result in client.results(job.id)}
    found, expected = by_id[heic.name], by_id[photo.name]
    check(bool(found.labels), f"{found.id}: {found.error or 'no labels'}")
    check(found.labels == expected.labels, f"{found.id}: {found.labels}, not {expected.labels}")
    print(f"{found.id}: {found.labels}", flush=True)


def submit(client: Client, copies: int, model: str | None = None) -> Job:
    """Submit `copies` of each sample photo."""
    photos = find_pictures(SAMPLES)
    pictures = {f"{copy}/{photo.name}": photo for copy in range(copies) for photo in photos}
    return client.submit_files(pictures, JobOptions(model=model))


def check_results(client: Client, job: Job, copies: int) -> None:
    """Wait for the job and compare the labels of every result with those of its photo."""
    job = client.wait(job.id, JOB_DEADLINE_S)
    with (SAMPLES / "labels.csv").open() as file:
        expected = {
            row.pop("name"): sorted(label for label, mark in row.items() if mark == "1")
            for row in csv.DictReader(file)
        }
    results = list(client.results(job.id))
    check(len(results) == copies * len(expected), f"{len(results)} results of {job.counts.total}")
    for result in results:
        name = result.id.partition("/")[2]
        labels = None if result.labels is None else sorted(result.labels)
        check(
            labels == expected[name], f"{result.id}: {labels or result.error}, not {expected[name]}"
        )
    print(f"{job.id}: {job.status}, {len(results)} pictures, each with its labels", flush=True)


def workers(client: Client) -> int:
    """Count the workers that the API considers alive."""
    answer = httpx2.get(f"{client.url}/readyz", trust_env=False)
    return int(answer.json().get("workers", 0))


def expect(
    condition: Callable[[], bool], otherwise: str, container: Container | None = None
) -> None:
    """Wait until a condition holds.

    Raises:
        SmokeFailed: it does not hold before the deadline.
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
    """Print the duration of a step."""
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
