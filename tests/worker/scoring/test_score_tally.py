"""The scores that a worker counts between two heartbeats."""

from worker.jobs.items import ItemResult, Rejection, RejectionCode, Stage
from worker.scoring.score_tally import ScoreTally

FAILED = ItemResult(rejection=Rejection(RejectionCode.TRUNCATED, Stage.DECODE, False, "cut off"))


def test_scores_add_up_until_they_are_taken() -> None:
    tally = ScoreTally()
    tally.know("cats@1:ab", {"cats@1:ab": ("cat", "dog")})
    tally.add("cats@1:ab", [ItemResult((0.95, 0.05)), FAILED, ItemResult((0.93, 0.55))])
    tally.add("cats@1:ab", [ItemResult((0.05, 0.57))])
    taken = tally.take()
    assert taken == {
        "cats@1:ab": {
            "cat": (1, 0, 0, 0, 0, 0, 0, 0, 0, 2),
            "dog": (1, 0, 0, 0, 0, 2, 0, 0, 0, 0),
        }
    }
    assert tally.take() == {}
    tally.give_back(taken)
    tally.add("cats@1:ab", [FAILED])
    assert tally.take() == taken


def test_the_scores_of_several_models_count_for_each() -> None:
    tally = ScoreTally()
    tally.know("a@1:x+b@2:y", {"a@1:x": ("one",), "b@2:y": tuple(map(str, range(30)))})
    tally.add("a@1:x+b@2:y", [ItemResult((0.15, *([0.0] * 29), 0.35))])
    counts = tally.take()
    assert counts["a@1:x"] == {"one": (0, 1, *[0] * 8)}
    assert counts["b@2:y"] == {"*": (0, 0, 0, 1, *[0] * 6)}
