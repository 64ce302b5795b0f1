"""Kept features are scored many at a time, with the results of scoring them one by one."""

from pathlib import Path

import numpy as np
from redis import Redis

from model.artifact.card import Card, describe_file, load_card, write_card
from model.artifact.features import pack_features, unpack_features
from model.artifact.head import Head
from model.engines.prediction import Features
from tests.worker.registry import add_version
from worker.jobs.items import (
    SCORE_DECIMALS,
    ImageFacts,
    ItemResult,
    ItemSpec,
    PackedFeatures,
    Rejection,
    RejectionCode,
    Stage,
    Timings,
    pack_results,
)
from worker.jobs.ledger.layout import NewJob, Shape, job_key
from worker.jobs.record import Lane, new_job_id
from worker.jobs.settings import load_settings
from worker.jobs.storage.features import block_name, pack_blocks
from worker.scoring.chunk import run_next
from worker.scoring.metrics import TimedPredictor
from worker.scoring.rescore import rounded
from worker.scoring.runtime import Runtime

# More pictures of each variant in a chunk than are scored at once.
TOTAL, CHUNK_ITEMS, RESCORED_ITEMS = 96, 8, 80
CUT = Rejection(RejectionCode.TRUNCATED, Stage.DECODE, False, "cut")
RANDOM = np.random.default_rng(0)


def write_exact(registry: Path, name: str) -> str:
    """Add a model whose logits do not depend on the order of the sum, for features 0 to 255.

    Gives its backbone.
    """
    folder = add_version(registry, "1", name=name)
    card = load_card(folder)
    head = Head.load(folder / "head.npz", len(card.labels))
    kernel = RANDOM.integers(-8, 9, head.kernel.shape).astype(np.float32) / np.float32(2**13)
    Head(kernel, np.zeros_like(head.bias)).save(folder / "head.npz")
    files = card.files | {"head": describe_file(folder / "head.npz")}
    card = Card(**card.model_dump() | {"files": files, "score_counts": {}})
    write_card(card, folder)
    assert card.backbone is not None
    return card.backbone


def scored(backbone: str, at: int) -> ItemResult:
    """An earlier result; the variant changes with each chunk, and two uploads failed."""
    image = ImageFacts(f"{at:064x}", 1000 + at, "jpeg", 640 + at, 480)
    if at in (5, 70):
        return ItemResult(rejection=CUT, image=image, timings=Timings(decode_ms=at))
    values = RANDOM.integers(0, 256, 1280).astype(np.float32)
    values[:2] = 0, 255
    variant = ("float", "int8")[at // CHUNK_ITEMS % 2]
    features = {backbone: PackedFeatures(variant, pack_features(values))}
    return ItemResult((0.5,) * 4, image=image, timings=Timings(9, 8, 7), features=features)


def test_the_bytes_in_redis_are_those_of_scoring_one_picture_after_the_other(
    redis_client: Redis, redis_url: str, tmp_path: Path
) -> None:
    backbone = write_exact(tmp_path / "registry", "coasts")
    assert backbone == write_exact(tmp_path / "registry", "harbours")
    settings = load_settings(
        redis_url=redis_url,
        registry_url=str(tmp_path / "registry"),
        storage_url=str(tmp_path / "storage"),
        default_model="coasts",
        model_variant="float",
        threads=1,
    )
    runtime = Runtime(settings)
    store, model = runtime.store, runtime.catalog.resolve("coasts+harbours")
    parent, again = new_job_id(), new_job_id()
    specs = [ItemSpec(f"id-{at}", filename=f"{at}.jpg") for at in range(TOTAL)]
    earlier = [scored(backbone, at) for at in range(TOTAL)]
    jobs = (
        (NewJob(parent, "anyone", model, 3600, keep_features=True), CHUNK_ITEMS),
        (NewJob(again, "anyone", model, 3600, rescore_of=parent), RESCORED_ITEMS),
    )
    for job, size in jobs:
        for first in range(0, TOTAL, size):
            some = [spec._replace(parent_index=at) for at, spec in enumerate(specs)]
            store.put_chunk(job.id, first // size, some[first : first + size])
        store.submit(job, Shape(Lane.BULK, TOTAL, size))
        if job.id == parent:
            while claims := store.claim_next(30, bulk_share=0.2):
                (claim,) = claims
                results = earlier[claim.first_index :][:CHUNK_ITEMS]
                block = pack_blocks(results)[backbone]
                name = block_name(claim.chunk_index, backbone)
                runtime.blobs.put_features(parent, {name: block})
                store.commit(claim, results)
    while run_next(runtime):
        pass
    with runtime.models.using(model.ref) as predictor:
        assert isinstance(predictor, TimedPredictor)
        scorer = predictor.of_features
    assert scorer is not None
    expected = []
    for one in earlier:
        if one.rejection is not None:
            expected.append(one)
            continue
        variant, content = one.features[backbone]
        features = {backbone: Features(variant, unpack_features([content]))}
        (row,) = scorer.of_features(features).tolist()
        scores = tuple(round(score, SCORE_DECIMALS) for score in row)
        expected.append(ItemResult(scores, image=one.image, variant=variant))
    assert len({one.scores for one in expected}) == TOTAL - 1
    for chunk, first in enumerate(range(0, TOTAL, RESCORED_ITEMS)):
        of_chunk = pack_results(1, expected[first : first + RESCORED_ITEMS])
        assert redis_client.hget(job_key(again, "res"), str(chunk)) == of_chunk
    counts = store.job(again).counts
    assert (counts.succeeded, counts.failed) == (TOTAL - 2, 2)
    runtime.close()


def test_scores_are_rounded_as_by_python_next_to_the_middle_too() -> None:
    middles = (RANDOM.integers(0, 10**SCORE_DECIMALS, 500) + 0.5) / 10**SCORE_DECIMALS
    near = [middles, np.nextafter(middles, 0), np.nextafter(middles, 1)]
    for some in np.concatenate([*near, [0, 1, 5e-6], RANDOM.random(500)]).tolist():
        row = [some, 0.25]
        assert rounded(np.array([row])) == [[round(score, SCORE_DECIMALS) for score in row]]
