"""Turns payloads into one result per item: decoding, batching and scoring, without any I/O."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import structlog

from model.artifact.features import pack_features
from model.images.decode import DEFAULT_MEMORY_BUDGET, decode
from model.images.difference_hash import difference_hash
from model.images.memory_budget import MemoryBudget
from model.images.result import DecodedImage, ImageRejected
from model.predictor import Predictor
from worker.jobs.items import (
    SCORE_DECIMALS,
    ImageFacts,
    ItemResult,
    PackedFeatures,
    Rejection,
    RejectionCode,
    Stage,
    Timings,
)
from worker.jobs.traces import span

log = structlog.get_logger()


@dataclass(frozen=True)
class LoadedPayload:
    """The bytes of one item, or why there are none; fetching took `fetch_ms`."""

    position: int
    payload: bytes | Rejection
    fetch_ms: int = 0


@dataclass(frozen=True)
class Limits:
    """Limits of one batch and one picture, and the memory budget that all threads decode in.

    With `keep_features`, results also have the features and difference hashes of their pictures.
    """

    batch_size: int
    max_pixels: int
    memory: MemoryBudget = DEFAULT_MEMORY_BUDGET
    keep_features: bool = False


def classify(
    payloads: Iterable[LoadedPayload],
    count: int,
    predictor: Predictor,
    limits: Limits,
    context: Callable[[int], AbstractContextManager[object]] = nullcontext,
    cached: Callable[[str], ItemResult | None] | None = None,
    on_image: Callable[[int, DecodedImage], object] = lambda *_: None,
    known: Mapping[int, ItemResult] | None = None,
) -> list[ItemResult]:
    """Score `count` items, each exactly once, in whatever order their payloads arrive.

    A bad item becomes a rejection, and the others are scored. `context` gives, for the position
    of an item, the context in which it is decoded; a batch is scored in that of its last item.
    `cached` gives the earlier result of a picture by the SHA-256 of its bytes, or None. `on_image`
    is called with the position and the image of each item that was decoded. `known` are the results
    of items, by position, that do not arrive.

    Raises:
        ValueError: an item arrived twice or not at all.
    """
    results = dict(known or {})
    batch: list[tuple[int, DecodedImage]] = []
    for payload in payloads:
        if payload.position in results:
            raise ValueError(f"item {payload.position} arrived twice")
        with context(payload.position):
            results[payload.position], image = _decode(payload, predictor, limits, cached)
            if image is not None:
                on_image(payload.position, image)
                batch.append((payload.position, image))
            if len(batch) == limits.batch_size:
                _score(batch, predictor, results, limits.keep_features)
                batch = []
    if batch:
        with context(batch[-1][0]):
            _score(batch, predictor, results, limits.keep_features)
    if len(results) != count:
        raise ValueError(f"{len(results)} of {count} items arrived")
    return [results[position] for position in range(count)]


def _decode(
    loaded: LoadedPayload,
    predictor: Predictor,
    limits: Limits,
    cached: Callable[[str], ItemResult | None] | None,
) -> tuple[ItemResult, DecodedImage | None]:
    """Give the result of an item before it is scored, and its image if it has one."""
    timings = Timings(fetch_ms=loaded.fetch_ms)
    if isinstance(loaded.payload, Rejection):
        return ItemResult(rejection=loaded.payload, timings=timings), None
    facts = ImageFacts(hashlib.sha256(loaded.payload).hexdigest(), len(loaded.payload))
    if cached and (earlier := cached(facts.sha256)):
        return replace(earlier, timings=timings), None
    started = time.monotonic()
    try:
        with span("decode"):
            image = decode(
                loaded.payload, predictor.card.input_size, limits.max_pixels, limits.memory
            )
    except ImageRejected as error:
        code = RejectionCode(error.code)
        rejection = Rejection(code, Stage.DECODE, False, error.detail)
        return ItemResult(rejection=rejection, image=facts, timings=timings), None
    facts = facts._replace(format=image.format, width=image.width, height=image.height)
    timings = replace(timings, decode_ms=_ms_since(started))
    return ItemResult(image=facts, timings=timings), image


def _score(
    batch: list[tuple[int, DecodedImage]],
    predictor: Predictor,
    results: dict[int, ItemResult],
    keep_features: bool,
) -> None:
    """Add the scores of a batch to the results of its items."""
    started = time.monotonic()
    try:
        predictions = predictor.predict([image.pixels for _, image in batch])
    except RuntimeError as error:  # raised by the engines if a forward pass fails
        log.error("forward_pass_failed", batch=len(batch), reason=str(error))
        if len(batch) > 1:
            for single in batch:
                _score([single], predictor, results, keep_features)
            return
        position = batch[0][0]
        rejection = Rejection(RejectionCode.MODEL_ERROR, Stage.INFER, True, str(error))
        results[position] = replace(results[position], rejection=rejection)
        return
    infer_ms = _ms_since(started) // len(batch)
    for (position, image), prediction in zip(batch, predictions, strict=True):
        result = results[position]
        features = prediction.features if keep_features else {}
        results[position] = replace(
            result,
            scores=tuple(round(score, SCORE_DECIMALS) for score in prediction.scores),
            timings=replace(result.timings, infer_ms=infer_ms),
            variant=predictor.variant,
            features={
                backbone: PackedFeatures(variant, pack_features(values))
                for backbone, (variant, values) in features.items()
            },
            difference_hash=difference_hash(image.pixels) if features else b"",
        )


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
