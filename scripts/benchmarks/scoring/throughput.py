"""The rate at which a job of URLs is scored, compared with bare scoring and with the tutorial."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import TypeVar

from model.images.decode import decode
from model.predictor import VariantChoice, load_predictor
from scripts.benchmarks.support.benchmark_run import BenchmarkRun, cpu_s, serving
from scripts.benchmarks.support.connection import Connection, picture_field
from scripts.benchmarks.support.figures import Figure, alternate, ratios
from scripts.benchmarks.support.pictures import read_pictures
from worker.jobs.settings import ARTIFACTS_PATH

BARE_THREADS, BARE_BATCH_SIZE = 2, 16
TUTORIAL_CLIENTS = 8

T = TypeVar("T")


# Pictures a second, and the CPU time that this process used.
Pace = tuple[float, float]


def throughput(run: BenchmarkRun) -> Iterator[Figure]:
    """Compare alternately: the service and bare scoring, then the service and the tutorial."""
    scale, payloads = run.scale, read_pictures(run.pictures)
    with run.image_server() as urls, run.stack() as stack:
        service_cpu_s: list[float] = []
        bare_cpu_s: list[float] = []
        pids = (*stack.workers, stack.api_pid or 0, stack.redis_pid or 0)
        score_bare = bare_scorer()

        def service() -> float:
            return score_urls(stack.url, urls)

        def metered() -> float:
            before_s = sum(map(cpu_s, pids))
            pictures_per_s = service()
            service_cpu_s.append(sum(map(cpu_s, pids)) - before_s)
            return pictures_per_s

        def bare() -> float:
            pictures_per_s, used_cpu_s = score_bare(payloads)
            bare_cpu_s.append(used_cpu_s)
            return pictures_per_s

        score_urls(stack.url, urls[: len(urls) // 10])
        yield _figure("throughput / bare", alternate(metered, bare, scale.rounds), 0.75)
        cpu = list(zip(service_cpu_s, bare_cpu_s, strict=True))
        note = "what 0.75 needs where other programs use the cores too"
        yield Figure.of("CPU time a picture / bare", "x", ratios(cpu), ("<=", 1 / 0.75), note)
        log_path = run.new_folder("tutorial") / "log"
        with serving(log_path, "scripts.benchmarks.scoring.tutorial") as tutorial_url:

            def tutorial() -> float:
                return post_each(tutorial_url, payloads[: scale.tutorial])[0]

            yield _figure("throughput / tutorial", alternate(service, tutorial, scale.rounds), 5)
        with run.stack(variant="int8") as int8_stack:

            def int8_service() -> float:
                return score_urls(int8_stack.url, urls)

            score_urls(int8_stack.url, urls[: len(urls) // 10])
            pairs = alternate(int8_service, service, scale.rounds)
            yield _figure("throughput, int8 / float", pairs, 1.6)
            score_bare_int8 = bare_scorer("int8")
            pairs = alternate(int8_service, lambda: score_bare_int8(payloads)[0], scale.rounds)
            yield _figure("throughput / bare, both int8", pairs, 0.75)


def score_urls(url: str, urls: list[str], **options: object) -> float:
    """Submit a job to a Piqueue and wait until it is done; gives its pictures a second.

    Raises:
        RuntimeError: a picture failed.
    """
    with Connection(url) as connection:
        started = time.perf_counter()
        job = connection.post("/jobs", {"urls": urls, **options})
        while not job["done"]:
            job = connection.get(f"/jobs/{job['id']}?wait=60&results=false")
        taken_s = time.perf_counter() - started
    if job["counts"]["succeeded"] != len(urls):
        raise RuntimeError(f"not all pictures were scored: {job['counts']} {job['failures']}")
    return len(urls) / taken_s


def bare_scorer(variant: VariantChoice = "float") -> Callable[[Sequence[bytes]], Pace]:
    """Load a model; gives a function that decodes and scores payloads without any service."""
    artifact = ARTIFACTS_PATH / "scenes" / "5"
    predictor = load_predictor(artifact, "litert", BARE_THREADS, BARE_BATCH_SIZE, variant)
    predictor.warm_up()
    size = predictor.card.input_size

    def score(batch: Sequence[bytes]) -> int:
        return len(predictor.predict([decode(payload, size).pixels for payload in batch]))

    def score_all(payloads: Sequence[bytes]) -> Pace:
        starts = range(0, len(payloads), BARE_BATCH_SIZE)
        return _measure(score, [payloads[at : at + BARE_BATCH_SIZE] for at in starts], BARE_THREADS)

    return score_all


def post_each(url: str, payloads: Sequence[bytes]) -> Pace:
    """Post each payload to the tutorial's server in a request of its own, from several clients."""
    client = local()

    def post(payload: bytes) -> int:
        if not hasattr(client, "connection"):
            client.connection = Connection(url)
        client.connection.send("POST", "/scorefile/", fields=picture_field("file", payload))
        return 1

    return _measure(post, payloads, TUTORIAL_CLIENTS)


def _measure(score: Callable[[T], int], work: Sequence[T], threads: int) -> Pace:
    """Score all the work in threads, after a round that only warms up."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(score, work[: 2 * threads]))
        wall, cpu = time.perf_counter(), time.process_time()
        scored = sum(pool.map(score, work))
        return scored / (time.perf_counter() - wall), time.process_time() - cpu


def _figure(name: str, pairs: list[tuple[float, float]], bound: float) -> Figure:
    ours, theirs = (sorted(paces)[len(paces) // 2] for paces in zip(*pairs, strict=True))
    note = f"{ours:.0f} against {theirs:.0f} pictures/s"
    return Figure.of(name, "x", ratios(pairs), (">=", bound), note)
