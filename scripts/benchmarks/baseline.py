"""What the cores can do at most: decode and score pictures in one process, with no service."""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from model.engines.prediction import Prediction
from model.images.decode import decode
from model.predictor import EngineChoice, Predictor, load_predictor
from scripts.benchmarks.pictures import read_pictures
from worker.jobs.settings import ARTIFACTS_PATH


@dataclass(frozen=True)
class Pace:
    """How fast pictures were scored; `cpu_s` is that of the whole process."""

    pictures: int
    wall_s: float
    cpu_s: float
    pictures_per_s: float


def measure(payloads: Sequence[bytes], predictor: Predictor, threads: int, batch_size: int) -> Pace:
    """Score all `payloads`, in memory already, after a round that only warms up."""
    size = predictor.card.input_size
    batches = [payloads[i : i + batch_size] for i in range(0, len(payloads), batch_size)]

    def score(batch: Sequence[bytes]) -> list[Prediction]:
        return predictor.predict([decode(payload, size).pixels for payload in batch])

    predictor.warm_up()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(score, batches[: 2 * threads]))
        wall, cpu = time.perf_counter(), time.process_time()
        scored = sum(len(predictions) for predictions in pool.map(score, batches))
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    assert scored == len(payloads)
    return Pace(scored, wall_s, cpu_s, scored / wall_s)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="made by scripts.benchmarks.pictures")
    parser.add_argument("--artifact", type=Path, default=ARTIFACTS_PATH / "scenes" / "2")
    parser.add_argument("--engine", choices=get_args(EngineChoice), default="litert")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    given = parser.parse_args()
    predictor = load_predictor(given.artifact, given.engine, given.threads, given.batch_size)
    pace = measure(read_pictures(given.folder), predictor, given.threads, given.batch_size)
    print(json.dumps(asdict(pace)))
