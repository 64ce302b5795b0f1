"""Results as packed for Redis: short score vectors, long ones, and none."""

import random
import zlib
from dataclasses import replace

import pytest

from worker.jobs.items import (
    HIGH_SCORE,
    ImageFacts,
    ItemResult,
    Rejection,
    RejectionCode,
    Stage,
    Timings,
    pack,
    pack_results,
    unpack_results,
)

REJECTED = ItemResult(rejection=Rejection(RejectionCode.TRUNCATED, Stage.DECODE, False, "cut"))


def scored(count: int, seed: int) -> ItemResult:
    chance = random.Random(seed)
    scores = tuple(round(chance.betavariate(0.1, 2), 5) for _ in range(count))
    facts = ImageFacts(chance.randbytes(32).hex(), 1000, "jpeg", 640, 480)
    return ItemResult(scores, None, facts, Timings(1, 2, 3), bool(seed % 2), "int8")


@pytest.mark.parametrize("labels", [1, 4, 32])
def test_short_scores_come_back_as_they_were(labels: int) -> None:
    results = [scored(labels, 1), REJECTED, scored(labels, 2)]
    assert unpack_results(pack_results(3, results)) == (3, results)


@pytest.mark.parametrize("labels", [33, 1000])
def test_long_scores_come_back_exact_to_five_decimals(labels: int) -> None:
    results = [REJECTED, scored(labels, 1), REJECTED, scored(labels, 2)]
    attempt, unpacked = unpack_results(pack_results(2, results))
    assert attempt == 2
    for before, after in zip(results, unpacked, strict=True):
        assert (after.image, after.rejection, after.cached) == (
            *(before.image, before.rejection, before.cached),
        )
        assert (after.scores is None) == (before.scores is None)
        assert after.scores == pytest.approx(before.scores, abs=1.3e-5)
        scores = after.scores or ()
        high, nearly = (
            {at for at, score in enumerate(scores) if score >= least}
            for least in (HIGH_SCORE, HIGH_SCORE - 1e-5)
        )
        assert high <= {*(after.high or ())} <= nearly
        assert (after.high is None) == (after.scores is None)


def test_scores_of_0_and_1_stay_exact() -> None:
    scores = (0.0, 1.0, *[0.5] * 40)
    _, (result,) = unpack_results(pack_results(1, [ItemResult(scores)]))
    assert result.scores is not None
    assert result.scores[:2] == (0.0, 1.0)


def test_results_packed_without_long_scores_are_read() -> None:
    results = [scored(4, 1), REJECTED]
    assert unpack_results(pack([2, [result.to_row() for result in results]])) == (2, results)


def test_results_packed_without_their_variant_are_read() -> None:
    _, (result,) = unpack_results(pack([2, [scored(4, 1).to_row()[:-1]]]))
    assert result == replace(scored(4, 1), variant=None)


def test_text_that_is_not_utf_8_comes_back_as_it_was() -> None:
    rejection = Rejection(RejectionCode.FETCH_DNS, Stage.FETCH, True, "no address of h\udcff")
    results = [scored(4, 1), ItemResult(rejection=rejection)]
    assert unpack_results(pack_results(1, results)) == (1, results)


def test_a_thousand_scores_of_a_softmax_take_less_than_a_kilobyte() -> None:
    chance = random.Random(1)
    results = []
    for _ in range(32):
        weights = [chance.lognormvariate(0, 2.5) for _ in range(1000)]
        results.append(ItemResult(tuple(weight / sum(weights) for weight in weights)))
    assert len(pack_results(1, results)) / 32 < 1300
    assert len(zlib.compress(repr([one.scores for one in results]).encode())) / 32 > 5000
