"""What shared backbones, kept features and taught heads cost.

`python -m scripts.benchmarks.training.teach FOLDER` compares taught heads with the fine-tuned
model: on the pictures of a folder with labels.csv, whose columns are `name`, `split` and the labels
of `scenes`.
"""

import csv
import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artifact.features import pack_features, unpack_features
from model.engines.joint import JointPredictor
from model.engines.network import SharedNetworks
from model.engines.prediction import Prediction
from model.images.decode import decode
from model.predictor import Predictor, load_predictor
from scripts.benchmarks.scoring.throughput import score_urls
from scripts.benchmarks.support.benchmark_run import BenchmarkRun, cpu_s
from scripts.benchmarks.support.connection import Connection
from scripts.benchmarks.support.figures import Figure, alternate, ratios
from scripts.benchmarks.support.pictures import read_pictures
from scripts.benchmarks.support.synthetic_jobs import (
    claim_all,
    submit_table,
    synthetic_results,
    write_table,
)
from scripts.local.stack import ROOT
from worker.jobs.items import PackedFeatures
from worker.jobs.logs import configure_logs
from worker.jobs.settings import ARTIFACTS_PATH, load_settings
from worker.jobs.storage.features import block_name, pack_blocks
from worker.scoring.chunk import run_next
from worker.scoring.runtime import Runtime

SCENES = ARTIFACTS_PATH / "scenes" / "5"
# Pictures of a job, and labelled ones.
JOB_PICTURES, LABELLED = 400, 1000
POSITIVES = (20, 50, 100, None)


def teach(run: BenchmarkRun) -> Iterator[Figure]:
    """Two models against one, kept features against none, and `piqueue teach` by the clock."""
    yield _two_models(run)
    with run.image_server() as urls, run.stack() as stack:
        some = urls[: min(JOB_PICTURES, len(urls))]
        score_urls(stack.url, some)
        paces: list[float] = []

        def worker_cpu_s(**options: object) -> float:
            before_s = sum(map(cpu_s, stack.workers))
            pace = score_urls(stack.url, some, **options)
            if not options:
                paces.append(pace)
            return sum(map(cpu_s, stack.workers)) - before_s

        pairs = alternate(lambda: worker_cpu_s(keep_features=True), worker_cpu_s, run.scale.rounds)
        scored_per_s = median(paces)
        note = f"{len(some)} pictures, {scored_per_s:.0f} pictures/s without"
        name = "worker's CPU time, features kept / not kept"
        yield Figure.of(name, "x", ratios(pairs), ("<=", 1.05), note)
        stored = [path.stat().st_size for path in Path(stack.storage_url).glob("*/*/features/*")]
        per_picture = sum(stored) / (len(some) * run.scale.rounds)
        note = "1,280 features each"
        yield Figure.of("features, bytes a picture", "B", [per_picture], ("<=", 1400), note)
    with run.stack(workers=0) as stack, Connection(stack.url) as connection:
        settings = load_settings(
            redis_url=stack.redis_url, storage_url=stack.storage_url, threads=1
        )
        # As the main module of a worker does.
        configure_logs(as_json=True)
        gc.collect()
        gc.freeze()
        runtime = Runtime(settings)
        yield _taught(run, runtime, connection, stack.url)
        yield from _rescored(run, runtime, connection, scored_per_s)
        runtime.close()


def _scored(run: BenchmarkRun, runtime: Runtime, connection: Connection, count: int) -> str:
    """Make a job whose results and features are made up; gives its id."""
    table = run.new_folder("scored") / "table.csv"
    write_table(table, count)
    job_id: str = submit_table(connection, table, keep_features="true")["id"]
    backbone = runtime.catalog.resolve("scenes").backbone
    assert backbone is not None
    random = np.random.default_rng(0)
    for claim in claim_all(runtime.store):
        rows = random.random((len(claim.specs), 1280), np.float32)
        results = [
            replace(result, features={backbone: PackedFeatures("float", pack_features(row))})
            for result, row in zip(synthetic_results(claim), rows, strict=True)
        ]
        block = pack_blocks(results)[backbone]
        runtime.blobs.put_features(job_id, {block_name(claim.chunk_index, backbone): block})
        runtime.store.commit(claim, results)
    return job_id


def _taught(run: BenchmarkRun, runtime: Runtime, connection: Connection, url: str) -> Figure:
    job_id, folder = _scored(run, runtime, connection, LABELLED), run.new_folder("taught")
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = ((f"SKU-{index:08d}", int(index % 3 == 0)) for index in range(LABELLED))
        csv.writer(file).writerows([("name", "bench"), *rows])
    command = [sys.executable, "-m", "scripts.commands", "teach", "bench"]
    command += [str(folder / "labels.csv"), "--from", job_id]
    env = {**os.environ, "PIQUEUE_URL": url}
    env["PIQUEUE_REGISTRY_URL"] = str(folder / "registry")
    taken = []
    for _ in range(run.scale.rounds):
        started = time.perf_counter()
        ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
        taken.append(time.perf_counter() - started)
        if ended.returncode:
            raise RuntimeError(ended.stderr)
    return Figure.of("piqueue teach", "s", taken, ("<=", 10), f"{LABELLED} pictures, one label")


def _rescored(
    run: BenchmarkRun, runtime: Runtime, connection: Connection, scored_per_s: float
) -> Iterator[Figure]:
    """Score the features of a large job in this process, with a worker's own code.

    A CPU second is one of all that a worker does between the claim of a chunk and its commit:
    Redis, the files of features, the heads and its log.
    """
    count = run.scale.scored_rows
    job_id = _scored(run, runtime, connection, count)
    started = time.perf_counter()
    rescored = connection.post(f"/jobs/{job_id}/rescore", {"model": "scenes"})
    submitted_s = time.perf_counter() - started
    used_s, started = time.process_time(), time.perf_counter()
    while run_next(runtime):
        pass
    used_s, wall_s = time.process_time() - used_s, time.perf_counter() - started
    job = connection.get(f"/jobs/{rescored['id']}?results=false")
    if job["counts"]["succeeded"] != count:
        raise RuntimeError(f"not all pictures were scored: {job['counts']}")
    note = f"{count} pictures, {wall_s:.1f} s; {submitted_s:.1f} s to submit"
    yield Figure.of("rescored pictures a CPU second", "/s", [count / used_s], (">=", 50_000), note)
    both = count / (submitted_s + wall_s)
    note = f"{both:.0f} against {scored_per_s:.0f} pictures/s, with the submission"
    name = "rescored / scored from URLs"
    yield Figure.of(name, "x", [both / scored_per_s], (">=", 50), note)


def _two_models(run: BenchmarkRun) -> Figure:
    networks = SharedNetworks()
    parts = [load_predictor(SCENES, "litert", networks=networks) for _ in range(2)]
    joint, size = JointPredictor(parts), parts[0].card.input_size
    payloads = cycle(read_pictures(run.pictures))

    def timed(predictor: Predictor) -> float:
        payload = next(payloads)
        started = time.thread_time()
        predictor.predict([decode(payload, size).pixels])
        return time.thread_time() - started

    alternate(lambda: timed(joint), lambda: timed(parts[0]), 20)
    pairs = alternate(lambda: timed(joint), lambda: timed(parts[0]), run.scale.requests)
    ours, theirs = (sorted(each) for each in zip(*pairs, strict=True))
    half = len(pairs) // 2
    note = f"{ours[half] * 1000:.2f} against {theirs[half] * 1000:.2f} CPU ms a picture, decoded"
    name = "two models on a backbone / one"
    return Figure(
        name,
        "x",
        ours[half] / theirs[half],
        ours[0] / theirs[0],
        ours[-1] / theirs[-1],
        "<=",
        1.05,
        note,
    )


def compare(folder: Path) -> Iterator[str]:
    """Lines with the macro average precision on `val` of the fine-tuned model and of heads.

    The heads are fitted on the first pictures of `train` with so many positives of each label, and
    as many others as there are.
    """
    from sklearn.metrics import average_precision_score

    from model.training import teach as lessons
    from model.training.data.dataset import Annotations

    predictor = load_predictor(SCENES, "litert")
    labels = predictor.card.labels
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    predictions = [_predicted(predictor, folder / "images" / row["name"]) for row in rows]
    truth = np.array([[row[label] == "1" for label in labels] for row in rows], np.float32)
    is_val = np.array([row["split"] == "val" for row in rows])
    exact = np.array([next(iter(one.features.values())).values for one in predictions])
    packed = unpack_features([pack_features(row) for row in exact])

    def figure(scores: NDArray[Any]) -> str:
        found = average_precision_score(truth[is_val], scores, average=None)
        each = ", ".join(f"{one} {value:.4f}" for one, value in zip(labels, found, strict=True))
        return f"{np.mean(found):.4f} ({each})"

    fine_tuned = np.array([one.scores for one in predictions])[is_val]
    yield f"fine-tuned: {figure(fine_tuned)}"
    for kind, features in (("float32", exact), ("8 bits", packed)):
        for positives in POSITIVES:
            chosen = _first(truth, ~is_val, positives)
            names = tuple(rows[index]["name"] for index in chosen)
            numbers = np.arange(len(chosen))
            none = np.zeros(len(chosen), np.bool_)
            annotations = Annotations(
                names, truth[chosen], none, tuple(numbers.tolist()), numbers, False
            )
            started = time.perf_counter()
            taught = lessons.teach(features[chosen], annotations, labels, "sigmoid")
            took_s = time.perf_counter() - started
            scores = taught.scores_of(features[is_val])
            count = positives or "all"
            yield (
                f"taught, {kind}, {count} positives a label, {len(chosen)} pictures, "
                f"{took_s:.1f} s: {figure(scores)}"
            )


def _predicted(predictor: Predictor, path: Path) -> Prediction:
    (prediction,) = predictor.predict([decode(path.read_bytes(), predictor.card.input_size).pixels])
    return prediction


def _first(
    truth: NDArray[np.float32], is_train: NDArray[np.bool_], positives: int | None
) -> NDArray[np.intp]:
    """Training pictures: all, or the first with so many positives a label and as many others."""
    train = np.flatnonzero(is_train)
    if positives is None:
        return train
    order = np.random.default_rng(0).permutation(train)
    chosen: set[int] = set()
    for column in truth.T:
        for answer in (1, 0):
            chosen |= set(order[column[order] == answer][:positives].tolist())
    return np.array(sorted(chosen))


if __name__ == "__main__":
    for line in compare(Path(sys.argv[1])):
        print(line, flush=True)
