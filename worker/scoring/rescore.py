"""Scores the kept features of an earlier job: nothing is fetched, decoded or run but heads."""

from dataclasses import replace
from itertools import takewhile

from model.artifact.features import unpack_features
from model.predictor import Predictor
from worker.jobs.errors import JobNotFound
from worker.jobs.items import SCORE_DECIMALS, ImageFacts, ItemResult
from worker.jobs.ledger.claims import Claim
from worker.jobs.storage.features import with_features
from worker.scoring.metrics import TimedPredictor
from worker.scoring.runtime import Runtime


def rescored(runtime: Runtime, claim: Claim, predictor: Predictor) -> dict[int, ItemResult]:
    """The results of the items of a chunk whose features are kept, by position.

    An upload that failed for good fails as before. It has none of the others, which are scored like
    those of any job.
    """
    scorer = predictor.of_features if isinstance(predictor, TimedPredictor) else None
    if claim.rescore_of is None or scorer is None or scorer.backbones is None:
        return {}
    backbones = scorer.backbones
    positions = {spec.parent_index: at for at, spec in enumerate(claim.specs)}
    indexes = [index for index in positions if index is not None]
    try:
        parent = runtime.store.job(claim.rescore_of)
        later = runtime.store.results(parent, min(indexes))
        last = max(indexes)
        read = takewhile(lambda stored: stored.index <= last, later)
        earlier = [one for one in read if one.index in positions]
    except JobNotFound:  # erased, with its features
        return {}
    found = {
        positions[one.index]: replace(one.result, rescored=True)
        for one in earlier
        if one.spec.url is None and one.result.rejection and not one.result.rejection.retryable
    }
    stored = [one for one in earlier if one.result.image]
    packed = [
        [features for _, features in with_features(runtime.blobs, parent, backbone, stored)]
        for backbone in backbones
    ]
    complete = [at for at, rows in enumerate(zip(*packed, strict=True)) if None not in rows]
    if not complete:
        return found
    predictions = scorer.of_features(
        {
            backbone: unpack_features([row for at in complete if (row := rows[at]) is not None])
            for backbone, rows in zip(backbones, packed, strict=True)
        }
    )
    for at, prediction in zip(complete, predictions, strict=True):
        image: ImageFacts | None = stored[at].result.image
        scores = tuple(round(score, SCORE_DECIMALS) for score in prediction.scores)
        result = ItemResult(scores, image=image, variant=predictor.variant, rescored=True)
        found[positions[stored[at].index]] = result
    return found
