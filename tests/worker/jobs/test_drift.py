"""Whether scores have parted from those of the validation set, on a real Redis and real cards."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from redis import Redis

from model.artifact import score_counts
from tests.worker.registry import add_version
from worker.jobs.drift import LEAST_SCORES, current_scores, stability_index
from worker.jobs.ledger import score_days
from worker.jobs.ledger.score_days import DAYS, ScoreDays, today
from worker.jobs.models.artifact import SCORE_BINS
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.folder import ModelFolder
from worker.jobs.record import ModelRef

MODEL = ModelRef("places", "1", "ab" * 32)
LOW, HIGH = [90, 0, 0, 0, 0, 0, 0, 0, 0, 10], [10, 0, 0, 0, 0, 0, 0, 0, 0, 90]


def times(counts: Sequence[int], factor: int) -> list[int]:
    return [count * factor for count in counts]


def test_workers_and_cards_have_the_same_bins() -> None:
    assert SCORE_BINS == score_counts.BINS


def test_equal_shares_have_no_index_and_turned_ones_a_large_one() -> None:
    assert stability_index(LOW, LOW) == 0
    assert stability_index(LOW, times(LOW, 50)) == 0
    # 2 * 0.8 * ln 9
    assert stability_index(LOW, times(HIGH, 100)) == pytest.approx(3.516, abs=0.001)
    assert stability_index([100, 0], [99, 1]) < 0.01


def test_the_counts_of_a_day_add_up_and_expire(redis_client: Redis) -> None:
    days = ScoreDays(redis_client)
    days.add({MODEL.key: {"a:b": LOW, "c": HIGH}, "other@1:ff": {"c": LOW}})
    days.add({MODEL.key: {"a:b": HIGH, "c": HIGH}})
    days.add({})
    found = days.read([MODEL.key, "unknown@1:ff"])
    assert found == {
        MODEL.key: {today(): {"a:b": [100, *[0] * 8, 100], "c": times(HIGH, 2)}},
        "unknown@1:ff": {},
    }
    lives = [redis_client.ttl(key) for key in redis_client.scan_iter("piqueue:scores:*")]
    assert len(lives) == 2
    assert all(0 < left <= DAYS * 86400 for left in lives)


def test_the_newest_day_with_enough_scores_is_compared(
    redis_client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ["beach", "city", "sunset", "trees"]
    add_version(tmp_path, "1", score_counts=dict.fromkeys(labels, LOW))
    catalog, days = ModelCatalog([ModelFolder(tmp_path)], "places"), ScoreDays(redis_client)
    key = catalog.resolve("places").ref.key

    def add(day: str, counts: Sequence[int]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(score_days, "_days", lambda: [day])
            days.add({key: dict.fromkeys(labels, counts)})

    monkeypatch.setattr(score_days, "_days", lambda: ["2026-11-27", "2026-11-26", "2026-11-25"])
    (found,) = current_scores(catalog, days)
    assert (found.day, found.drift, found.by_day) == (None, {}, {})
    add("2026-11-25", times(LOW, LEAST_SCORES))
    add("2026-11-26", times(HIGH, LEAST_SCORES // 100))
    add("2026-11-27", HIGH)
    add("2026-11-20", LOW)
    (found,) = current_scores(catalog, days)
    assert list(found.by_day) == ["2026-11-27", "2026-11-26", "2026-11-25"]
    assert found.day == "2026-11-26", "of the newest day there are too few scores"
    assert found.drift.keys() == set(labels)
    assert min(found.drift.values()) > 2


def test_only_the_current_version_is_compared(redis_client: Redis, tmp_path: Path) -> None:
    catalog, days = ModelCatalog([ModelFolder(tmp_path)], "places"), ScoreDays(redis_client)
    for version in ("1", "2"):
        add_version(tmp_path, version)
        days.add({catalog.resolve(f"places@{version}").ref.key: {"beach": LOW}})
    catalog.promote("places", "1")
    assert [one.model.version for one in current_scores(catalog, days)] == ["1"]


def test_a_card_with_counts_of_other_bins_is_ignored(tmp_path: Path) -> None:
    add_version(tmp_path, "1")
    add_version(tmp_path, "2", score_counts={"beach": [1, 2, 3]})
    catalog = ModelCatalog([ModelFolder(tmp_path)], "places")
    assert [card.version for card in catalog.all()] == ["1"]
