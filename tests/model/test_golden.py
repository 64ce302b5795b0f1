"""The bundled model labels the sample photos correctly, and alike in every engine."""

import csv
import json
from itertools import combinations

import numpy as np
import pytest

from model.artifact.card import load_card
from model.images.decode import decode
from model.predictor import Predictor, load_predictor
from tests.golden import (
    ARTIFACT,
    GOLDEN,
    SAMPLES,
    TOLERANCE,
    Scores,
    golden_scores,
    sample_photos,
    score_photos,
)


@pytest.fixture(scope="module")
def litert() -> Predictor:
    return load_predictor(ARTIFACT, "litert")


@pytest.fixture(scope="module")
def tensorflow() -> Predictor:
    return load_predictor(ARTIFACT, "tensorflow")


def test_the_golden_scores_are_of_the_bundled_model() -> None:
    golden_sha256 = json.loads(GOLDEN.read_text())["model_sha256"]
    assert golden_sha256 == load_card(ARTIFACT).sha256, "run python -m tests.golden"


def test_litert_gives_the_golden_scores(litert: Predictor) -> None:
    assert_golden(score_photos(litert))


def test_int8_gives_the_labels_of_the_golden_scores() -> None:
    predictor = load_predictor(ARTIFACT, "litert", variant="int8")
    golden, thresholds = (
        golden_scores(),
        dict(zip(predictor.card.labels, predictor.card.thresholds, strict=True)),
    )
    for photo, by_label in score_photos(predictor).items():
        assert by_label == pytest.approx(golden[photo], abs=0.1), photo
        for label, score in by_label.items():
            assert (score >= thresholds[label]) == (golden[photo][label] >= thresholds[label])


def test_tensorflow_gives_the_golden_scores(tensorflow: Predictor) -> None:
    assert_golden(score_photos(tensorflow))


def assert_golden(scores: Scores) -> None:
    golden = golden_scores()
    assert scores.keys() == golden.keys()
    for photo, by_label in scores.items():
        assert by_label == pytest.approx(golden[photo], abs=TOLERANCE), photo


def test_the_engines_agree_on_pictures_with_uncertain_scores(
    litert: Predictor, tensorflow: Predictor
) -> None:
    photos = [decode(photo.read_bytes()).pixels for photo in sample_photos()]
    blends = [one // 2 + other // 2 for one, other in combinations(photos, 2)]
    expected = np.array([prediction.scores for prediction in litert.predict(blends)])
    assert ((expected > 0.2) & (expected < 0.8)).sum() > 5
    scores = np.array([prediction.scores for prediction in tensorflow.predict(blends)])
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)


def test_the_bundled_model_labels_every_sample_photo_correctly() -> None:
    card = load_card(ARTIFACT)
    threshold = dict(zip(card.labels, card.thresholds, strict=True))
    with (SAMPLES / "labels.csv").open(newline="") as file:
        expected = {row.pop("name"): row for row in csv.DictReader(file)}
    labelled = {
        photo: {label: str(int(score >= threshold[label])) for label, score in by_label.items()}
        for photo, by_label in golden_scores().items()
    }
    assert labelled == expected


def test_the_sample_photos_have_every_label_and_one_has_none() -> None:
    with (SAMPLES / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for label in load_card(ARTIFACT).labels:
        assert any(row[label] == "1" for row in rows), label
    assert any("1" not in row.values() for row in rows)


def test_every_sample_photo_is_attributed_and_all_are_small() -> None:
    attribution = (SAMPLES / "ATTRIBUTION.md").read_text()
    photos = sample_photos()
    assert 6 <= len(photos) <= 10
    assert all(f"`{photo.name}`" in attribution for photo in photos)
    assert sum(photo.stat().st_size for photo in photos) < 600_000
