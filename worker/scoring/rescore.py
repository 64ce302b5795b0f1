"""Scores the kept features of an earlier job: nothing is fetched, decoded or run but heads."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artifact.features import unpack_features
from model.engines.prediction import Features
from model.predictor import Predictor
from worker.jobs.errors import JobNotFound
from worker.jobs.items import SCORE_DECIMALS, ImageFacts, ItemResult
from worker.jobs.ledger.claims import Claim
from worker.jobs.storage.features import Kept, kept_of
from worker.scoring.metrics import TimedPredictor
from worker.scoring.runtime import Runtime

# So few that their features stay in the cache of a core, and that BLAS does not divide the work of
# a head with a few labels among threads, which would mostly wait for each other.
SCORED_AT_ONCE = 64
# More than the error of a score of up to 1 that is multiplied by 10**SCORE_DECIMALS.
_MIDDLE = 1e-9

# A picture of the earlier job: its index, its facts and what is kept of it, for each backbone.
_Picture = tuple[int, ImageFacts, list[Kept]]


def rescored(runtime: Runtime, claim: Claim, predictor: Predictor) -> dict[int, ItemResult]:
    """The results of the items of a chunk whose features are kept, by position.

    An upload that failed for good fails as before. It has none of the others, which are scored like
    those of any job.
    """
    scorer = predictor.of_features if isinstance(predictor, TimedPredictor) else None
    if claim.rescore_of is None or scorer is None or scorer.backbones is None:
        return {}
    backbones = scorer.backbones
    specs = {spec.parent_index: spec for spec in claim.specs}
    positions = {index: at for at, index in enumerate(specs) if index is not None}
    try:
        parent = runtime.store.job(claim.rescore_of)
    except JobNotFound:  # erased, with its features
        return {}
    found, pictures = {}, []
    for index, (image, failed) in runtime.store.pictures(parent, list(positions)).items():
        if image is not None:
            pictures.append((index, image))
        if failed is None or failed.rejection is None or specs[index].url is not None:
            continue
        if not failed.rejection.retryable:
            found[positions[index]] = replace(failed, rescored=True)
    kept = [kept_of(runtime.blobs, parent, backbone, pictures) for backbone in backbones]
    for variants, group in _by_variants(pictures, kept).items():
        variant = "+".join(dict.fromkeys(variants))
        for start in range(0, len(group), SCORED_AT_ONCE):
            some = group[start : start + SCORED_AT_ONCE]
            columns = zip(*(of_picture for _, _, of_picture in some), strict=True)
            features = {
                backbone: Features(name, unpack_features([one.features for one in column]))
                for backbone, name, column in zip(backbones, variants, columns, strict=True)
            }
            rows = rounded(scorer.of_features(features))
            for (index, image, _), row in zip(some, rows, strict=True):
                result = ItemResult(tuple(row), image=image, variant=variant, rescored=True)
                found[positions[index]] = result
    return found


def rounded(scores: NDArray[np.floating[Any]]) -> list[list[float]]:
    """Round scores (n, n_labels) as `round` does, in a tenth of the time."""
    scaled = scores.astype(np.float64) * 10**SCORE_DECIMALS
    # NumPy rounds these, which are not exact: next to a middle they may be on its other side.
    if (np.abs(scaled % 1 - 0.5) < _MIDDLE).any():
        return [[round(score, SCORE_DECIMALS) for score in row] for row in scores.tolist()]
    found: list[list[float]] = (np.rint(scaled) / 10**SCORE_DECIMALS).tolist()
    return found


def _by_variants(
    pictures: Sequence[tuple[int, ImageFacts]], kept: Sequence[Sequence[Kept | None]]
) -> Mapping[tuple[str, ...], list[_Picture]]:
    """The pictures with features of all backbones, by the variants of their features.

    `kept` has a sequence for each backbone.
    """
    groups: dict[tuple[str, ...], list[_Picture]] = defaultdict(list)
    for (index, image), *of_picture in zip(pictures, *kept, strict=True):
        if None not in of_picture:
            groups[tuple([one.variant for one in of_picture])].append((index, image, of_picture))
    return groups
