"""Scores the kept features of an earlier job: nothing is fetched, decoded or run but heads."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile

from model.artifact.features import unpack_features
from model.engines.prediction import Features
from model.predictor import Predictor
from worker.jobs.errors import JobNotFound
from worker.jobs.items import SCORE_DECIMALS, ImageFacts, ItemResult
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.storage.features import Kept, with_kept
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
        [kept for _, kept in with_kept(runtime.blobs, parent, backbone, stored)]
        for backbone in backbones
    ]
    for some in _by_variants(stored, packed):
        columns = zip(*(rows for _, rows in some), strict=True)
        features = {
            backbone: Features(rows[0].variant, unpack_features([row.features for row in rows]))
            for backbone, rows in zip(backbones, columns, strict=True)
        }
        for (one, _), prediction in zip(some, scorer.of_features(features), strict=True):
            image: ImageFacts | None = one.result.image
            scores = tuple(round(score, SCORE_DECIMALS) for score in prediction.scores)
            variant = "+".join(dict.fromkeys(each.variant for each in prediction.features.values()))
            result = ItemResult(scores, image=image, variant=variant, rescored=True)
            found[positions[one.index]] = result
    return found


def _by_variants(
    stored: Sequence[StoredResult], packed: Sequence[Sequence[Kept | None]]
) -> Iterable[list[tuple[StoredResult, list[Kept]]]]:
    """Results with the features of all backbones, in groups whose features have the same variants.

    `packed` has a sequence for each backbone.
    """
    groups = defaultdict(list)
    for one, rows in zip(stored, zip(*packed, strict=True), strict=True):
        kept = [row for row in rows if row is not None]
        if len(kept) == len(rows):
            groups[tuple(row.variant for row in kept)].append((one, kept))
    return groups.values()
