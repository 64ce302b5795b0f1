"""Ray Data: fetches URLs and scores them with two actors, once for each line of its input."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
import urllib3
from ray.data import ActorPoolStrategy

from model.images.decode import decode
from model.predictor import load_predictor
from worker.jobs.settings import ARTIFACTS_PATH

ACTORS, BATCH_SIZE, FETCHES = 2, 16, 8


def fetch(batch: dict[str, Any]) -> dict[str, Any]:
    """Fetch the pictures of a batch at the same time."""
    with urllib3.PoolManager(maxsize=FETCHES) as pool, ThreadPoolExecutor(FETCHES) as threads:
        answers = list(threads.map(lambda url: pool.request("GET", url), batch["url"]))
    return {"payload": [answer.data for answer in answers]}


class Scorer:
    """Decodes and scores a batch."""

    def __init__(self) -> None:
        self._predictor = load_predictor(ARTIFACTS_PATH / "scenes" / "5", "litert", 1, BATCH_SIZE)
        self._predictor.warm_up()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Give the scores of the pictures, and when each had them."""
        size = self._predictor.card.input_size
        pixels = [decode(payload, size).pixels for payload in batch["payload"]]
        scores = [list(one.scores) for one in self._predictor.predict(pixels)]
        return {"scores": scores, "scored_s": [time.time()] * len(scores)}


def pictures_per_s(urls: list[str]) -> float:
    """Score all URLs; gives the rate after the first batch, so that no start is measured."""
    rows = ray.data.from_items([{"url": url} for url in urls])
    fetched = rows.map_batches(fetch, batch_size=BATCH_SIZE, num_cpus=0.2)
    strategy = ActorPoolStrategy(size=ACTORS)
    scored = fetched.map_batches(Scorer, batch_size=BATCH_SIZE, compute=strategy, num_cpus=0.8)
    times = sorted(row["scored_s"] for row in scored.iter_rows())
    if len(times) != len(urls):
        raise RuntimeError(f"{len(times)} of {len(urls)} pictures were scored")
    later = sum(scored_s > times[0] for scored_s in times)
    return float(later / (times[-1] - times[0]))


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    given = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    for _ in sys.stdin:
        print(pictures_per_s(given), flush=True)
