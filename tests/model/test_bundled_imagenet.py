"""The bundled model imagenet: its card, its labels, and its scores of the sample photos."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.artifact.card import load_card
from model.images.decode import decode
from model.predictor import load_predictor
from model.training.imagenet import class_names, load_network
from tests.golden import ROOT, SAMPLES, TOLERANCE

# Keras hands NumPy an array type that NumPy 2.4 finds old-fashioned.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ARTIFACT = ROOT / "model" / "bundled" / "imagenet" / "2"
GOLDEN = Path(__file__).with_name("golden_imagenet.json")


def test_it_is_small_and_its_card_describes_it() -> None:
    card = load_card(ARTIFACT)
    assert (len(card.labels), card.activation, card.top_k) == (1000, "softmax", 5)
    assert card.files.keys() == {"litert"}
    assert card.files["litert"].bytes < 8_000_000
    assert [source.terms for source in card.sources] == ["Apache-2.0"]


def test_it_gives_the_golden_scores() -> None:
    golden = json.loads(GOLDEN.read_text())
    predictor = load_predictor(ARTIFACT, "litert")
    assert golden["model_sha256"] == predictor.card.sha256
    for photo, best in golden["scores"].items():
        image = decode((SAMPLES / photo).read_bytes(), predictor.card.input_size).pixels
        (prediction,) = predictor.predict([image])
        scores = dict(zip(predictor.card.labels, prediction.scores, strict=True))
        assert max(scores, key=lambda label: scores[label]) == next(iter(best)), photo
        for label, score in best.items():
            assert scores[label] == pytest.approx(score, abs=TOLERANCE), (photo, label)
        assert sum(scores.values()) == pytest.approx(1, abs=1e-4)


def test_its_int8_file_gives_the_same_first_answers() -> None:
    card = load_card(ARTIFACT)
    assert card.variants["int8"].bytes < 4_000_000
    figures = card.variants["int8"].metrics["validation_against_float"]
    assert figures["same_first_answer"] >= 0.95
    as_float, as_int8 = (
        load_predictor(ARTIFACT, "litert", variant=name) for name in ("float", "int8")
    )
    photos = sorted(json.loads(GOLDEN.read_text())["scores"])
    pixels = [decode((SAMPLES / photo).read_bytes(), card.input_size).pixels for photo in photos]
    for photo, before, after in zip(
        photos, as_float.predict(pixels), as_int8.predict(pixels), strict=True
    ):
        assert np.argmax(before.scores) == np.argmax(after.scores), photo
        np.testing.assert_allclose(after.scores, before.scores, atol=0.1)
        assert not np.array_equal(after.scores, before.scores), photo


def test_classes_that_share_a_first_name_get_all_of_their_names() -> None:
    lines = ["background", *(f"class {place}" for place in range(1000))]
    lines[1 + 7] = "cardigan, Cardigan Welsh corgi"
    lines[1 + 9] = "cardigan, woollen"
    lines[1 + 11] = "tabby, tabby cat"
    names = class_names(lines)
    assert len(names) == 1000
    assert (names[7], names[9]) == ("cardigan, Cardigan Welsh corgi", "cardigan, woollen")
    assert (names[0], names[11], names[134]) == ("class 0", "tabby", "crane (bird)")


def test_its_labels_are_unique_and_in_order() -> None:
    labels = load_card(ARTIFACT).labels
    places = {0: "tench", 281: "tabby", 134: "crane (bird)", 517: "crane (machine)", 970: "alp"}
    assert {place: labels[place] for place in places} == places
    assert len(set(labels)) == 1000


def test_the_background_class_of_1001_is_dropped(tmp_path: Path) -> None:
    import keras

    backbone = keras.applications.MobileNetV2(include_top=False, weights=None)
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    kernel = np.random.default_rng(1).normal(size=(1280, 1001)).astype(np.float32)
    np.savez(tmp_path / "top.npz", kernel=kernel, bias=np.arange(1001, dtype=np.float32))
    network = load_network(tmp_path / "backbone.weights.h5", tmp_path / "top.npz")
    taken, bias = network.layers[-1].get_weights()
    np.testing.assert_array_equal(taken, kernel[:, 1:])
    np.testing.assert_array_equal(bias, np.arange(1, 1001))
    assert network.output_shape == (None, 1000)
