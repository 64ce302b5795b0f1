"""The int8 variant: which scores it gives, and what it takes to be written."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from numpy.typing import NDArray

from model.artifact.calibration import calibrated
from model.artifact.card import Activation, Calibration, Card, load_card
from model.artifact.head import Head
from model.predictor import load_predictor, verify_artifact
from model.training.data.dataset import Annotations
from model.training.export import write_artifact
from model.training.network.build import Network
from model.training.quantization import quantize
from model.training.quantization.quantize import Judgement, add_int8, align, judge, judge_taught
from model.training.run import quantize_folds

# Keras hands NumPy an array type that NumPy 2.4 finds old-fashioned.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDE = 16
LABELS = ("red", "green", "blue")


def network(activation: Activation = "sigmoid") -> Network:
    """A convolutional network that scores how red, green and blue a picture is."""
    keras.utils.set_random_seed(1)
    pictures = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="pictures")
    scaled = layers.Rescaling(1 / 127.5, offset=-1)(pictures)
    frozen = keras.Model(pictures, layers.Conv2D(8, 3, activation="relu")(scaled))
    features = keras.Input(frozen.output_shape[1:])
    deeper = features
    for _ in range(4):
        deeper = layers.Conv2D(8, 3, padding="same", activation="relu")(deeper)
    dense = layers.Dense(3, activation=activation)
    tuned_backbone = keras.Model(features, layers.GlobalAveragePooling2D()(deeper))
    vector = keras.Input((8,))
    head = keras.Model(vector, dense(vector))
    tuned = keras.Model(features, head(tuned_backbone.output))
    kernel, bias = dense.get_weights()
    dense.set_weights([kernel * 20, bias])
    full = keras.Model(pictures, tuned(frozen.output))
    backbone = keras.Model(pictures, tuned_backbone(frozen.output))
    return Network(full, frozen, tuned_backbone, backbone, head, tuned, activation)


def images(count: int, seed: int = 1) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 200, (count, 1, 1, 3))
    return (colours + generator.integers(0, 56, (count, SIDE, SIDE, 3))).astype(np.uint8)


def write(
    full: Any, folder: Path, activation: Activation = "sigmoid", head: Head | None = None
) -> Path:
    calibration = Calibration(slopes=(0.8, 1.1, 0.9), offsets=(0.2, -0.1, 0.0))
    fields = {
        "labels": LABELS,
        "thresholds": (0.5,) * 3,
        "activation": activation,
        "input_size": (SIDE, SIDE),
        "calibration": calibration if activation == "sigmoid" else None,
    }
    write_artifact(full, folder / "colours" / "1", fields, head=head)
    return folder / "colours" / "1"


def scores(folder: Path, variant: Any, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    predictor = load_predictor(folder, "litert", variant=variant)
    return np.array([prediction.scores for prediction in predictor.predict(list(pictures))])


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_variant_scores_like_the_float_file_and_its_card_says_how_much(
    tmp_path: Path, activation: Activation
) -> None:
    full = network(activation).full
    folder = write(full, tmp_path, activation)
    before = load_card(folder)
    judged = images(400, seed=2)
    truth = judged.mean(axis=(1, 2)) > 128
    assert add_int8(full, folder, images(100), judged, truth) is None

    card = verify_artifact(folder)
    int8 = card.variants["int8"]
    assert (card.files, card.thresholds) == (before.files, before.thresholds)
    assert int8.bytes != card.files["litert"].bytes
    difference = np.abs(scores(folder, "int8", judged) - scores(folder, "float", judged)).max()
    figures = int8.metrics["validation_against_float"]
    assert figures["largest_difference"] == pytest.approx(difference, abs=1e-3)
    assert 0 < difference < 0.1
    if activation == "softmax":
        assert figures["same_first_answer"] >= 0.95
        assert int8.calibration is None
    else:
        assert figures["flipped"] <= 0.005
        assert "macro_average_precision" in int8.metrics["validation"]
        assert int8.calibration is not None
        np.testing.assert_allclose(int8.calibration.slopes, (0.8, 1.1, 0.9), rtol=0.1)


def test_a_variant_that_misses_a_bound_is_not_written_although_layers_stay_in_float(
    tmp_path: Path,
) -> None:
    full, tried = network().full, []
    folder = write(full, tmp_path)
    before = sorted(path.name for path in folder.iterdir())
    card = load_card(folder)

    def never(given: Card, _content: bytes, float_layers: int | None) -> Judgement:
        assert given == card
        tried.append(float_layers)
        return {}, [f"{float_layers} layers in float are too few"]

    assert add_int8(full, folder, images(100), images(60, 2), None, never) == (
        "None layers in float are too few"
    )
    assert tried == [0, 4, None]  # it has fewer than 10 layers
    assert sorted(path.name for path in folder.iterdir()) == before
    assert load_card(folder) == card


def test_the_variant_of_a_model_with_a_head_is_one_of_its_backbone(tmp_path: Path) -> None:
    made = network()
    folder = write(made.backbone, tmp_path / "apart", head=made.weights_of_head())
    whole = write(made.full, tmp_path / "whole")
    judged = images(60, 2)
    for each, exported in ((folder, made.backbone), (whole, made.full)):
        assert add_int8(exported, each, images(100), judged) is None
    card = load_card(folder)
    assert card.of_variant("int8").files["head"] == card.files["head"]
    for variant in ("float", "int8"):
        np.testing.assert_allclose(
            scores(folder, variant, judged), scores(whole, variant, judged), atol=0.003
        )
    assert np.abs(scores(folder, "int8", judged) - scores(folder, "float", judged)).max() > 1e-4


def test_a_layer_that_is_left_in_float_is_larger_and_nearer_to_float() -> None:
    full, pictures = network().full, images(100)
    quantizer = quantize.Quantizer(full, pictures)
    few, many, all_activations = (quantizer.quantized(count) for count in (0, 4, None))
    assert len(many) > len(few)
    expected = full.predict(pictures, verbose=0)
    errors = [
        np.abs(quantize.raw_scores(one, pictures, "sigmoid") - expected).mean()
        for one in (few, many, all_activations)
    ]
    assert errors[1] < errors[0]
    assert 0.0001 < errors[2] < 0.005
    tensors = Interpreter(model_content=all_activations).get_tensor_details()
    # Those of five convolutions and a dense layer.
    kernels = [tensor for tensor in tensors if tensor["dtype"] is np.int8]
    assert len(kernels) == 6
    assert all(len(tensor["quantization_parameters"]["scales"]) > 1 for tensor in kernels)


def test_too_few_pictures_show_nothing(tmp_path: Path) -> None:
    full = network().full
    folder = write(full, tmp_path)
    reason = add_int8(full, folder, images(100), images(49), None)
    assert reason == "its check needs 50 pictures, and there are 49"
    assert not load_card(folder).variants


def card_of(activation: Activation, tmp_path: Path) -> Card:
    return load_card(write(network(activation).full, tmp_path, activation))


def test_flipped_labels_and_lost_precision_are_faults(tmp_path: Path) -> None:
    card = card_of("sigmoid", tmp_path)
    before = np.random.default_rng(1).uniform(0, 1, (200, 3))
    truth = before > 0.5
    assert judge(card, before, before, truth)[1] == []

    flipped = before.copy()
    flipped[:3, 0] = 1 - before[:3, 0]
    assert judge(card, before, flipped, None)[1] == []  # 3 of 600
    flipped[3, 0] = 1 - before[3, 0]
    metrics, faults = judge(card, before, flipped, truth)
    assert metrics["validation_against_float"]["flipped"] == 0.0067
    assert faults[0] == "0.67% of the labels change, more than 0.5%"
    assert "binary_accuracy (validation) is 0.9933, and 1.0 in float" in faults

    worse = np.where(truth[:, :1] & (before > 0.9), 0.51, before)
    _, faults = judge(card, before, worse, truth & (before > 0.9), "out_of_fold")
    assert "macro_average_precision (out_of_fold)" in faults[0]


def test_other_first_answers_are_a_fault_of_a_softmax(tmp_path: Path) -> None:
    card = card_of("softmax", tmp_path)
    before = np.tile([0.7, 0.2, 0.1], (100, 1))
    after = before.copy()
    after[:5] = [0.3, 0.6, 0.1]
    assert judge(card, before, after, None)[1] == []
    after[5] = [0.3, 0.6, 0.1]
    assert judge(card, before, after, None)[1] == [
        "94.0% of the first answers are the same, not 95%"
    ]


def test_heads_taught_on_the_features_of_one_variant_are_judged_on_those_of_the_other(
    tmp_path: Path,
) -> None:
    card, random = card_of("sigmoid", tmp_path), np.random.default_rng(1)
    features = random.normal(0, 1, (400, 8)).astype(np.float32)
    labels = (features @ random.normal(0, 1, (8, 3)) > 0).astype(np.float32)
    names = tuple(f"{index}.jpg" for index in range(400))
    numbers = np.arange(400)
    annotations = Annotations(
        names, labels, numbers % 4 == 0, tuple(numbers.tolist()), numbers, True
    )
    noise = random.normal(0, 1, features.shape).astype(np.float32)
    metrics, faults = judge_taught(card, features, features + 1e-4 * noise, annotations)
    assert faults == []
    assert [one["pictures"] for one in metrics.values()] == [100, 100]
    assert metrics.keys() == {"taught_on_float_against_other", "taught_on_int8_against_other"}
    _, faults = judge_taught(card, features, features + 0.3 * noise, annotations)
    assert re.match(r"a head taught on float: .* of the labels change", faults[0])
    assert any(fault.startswith("a head taught on int8: ") for fault in faults)
    few = annotations.of(np.arange(8))
    assert judge_taught(card, features[:8], features[:8], few) == (
        {},
        ["the pictures are too few to teach a head"],
    )


def test_scores_are_aligned_although_a_label_is_never_uncertain() -> None:
    generator = np.random.default_rng(1)
    aim = generator.normal(0, 3, (300, 2))
    aim[:, 1] -= 12
    to, given = 1 / (1 + np.exp(-aim)), 1 / (1 + np.exp(-(aim - 0.5) / 1.25))
    alignment = align(to, given)
    np.testing.assert_allclose(alignment.slopes, 1.25, rtol=0.02)
    np.testing.assert_allclose(calibrated(given, alignment, "sigmoid"), to, atol=1e-3)
    constant = align(to, np.full_like(to, 0.5))
    assert constant.slopes == (1.0, 1.0)


def test_each_picture_is_scored_out_of_fold_by_the_fit_that_never_saw_it() -> None:
    made, pictures = network(), images(120)
    start = made.tuned.get_weights()
    other = [*start[:-1], start[-1] + [3.0, -3.0, 0.0]]
    folds = np.arange(120) % 2
    found = quantize_folds(made, [start, other], pictures, folds, 0)
    for one, kept in zip(made.tuned.get_weights(), start, strict=True):
        np.testing.assert_array_equal(one, kept)
    expected = np.empty_like(found)
    for fold, weights in enumerate((start, other)):
        made.tuned.set_weights(weights)
        expected[folds == fold] = made.full.predict(pictures[folds == fold], verbose=0)
    np.testing.assert_allclose(found, expected, atol=0.06)
