"""Adoption of Keras classifiers: the artifact matches the description, or it is refused."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from keras.applications import imagenet_utils
from numpy.typing import NDArray
from PIL import Image

from model.artifact.card import load_card
from model.predictor import Predictor, load_predictor, verify_artifact
from model.training.adopt import Adoption, adopt
from model.training.adoption import AdoptionError
from model.training.export import write_artifact

# Keras hands NumPy an array type that NumPy 2.4 finds old-fashioned.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (20, 28)
SCALED = {
    "tf": lambda images: imagenet_utils.preprocess_input(images, mode="tf"),
    "torch": lambda images: imagenet_utils.preprocess_input(images, mode="torch"),
    "caffe": lambda images: imagenet_utils.preprocess_input(images, mode="caffe"),
    "unit": lambda images: images / 255,
    "raw": lambda images: images,
}


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, ...]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, noise(), strict=True):
        Image.fromarray(image).save(path)
    return tuple(paths)


def noise() -> NDArray[np.uint8]:
    """Pictures of different colours, so that swapped channels show."""
    colours = np.array([[200, 20, 20], [10, 180, 90], [90, 40, 160]])[:, None, None]
    random = np.random.default_rng(3).integers(0, 56, (3, *SIZE, 3))
    return (colours + random).astype(np.uint8)


def network(
    activation: str | None = "softmax",
    size: tuple[int | None, int | None] = SIZE,
    weight: float = 1,
) -> Any:
    """A network of 4 scores that tells red, green and blue apart."""
    kernel = np.random.default_rng(5).normal(0, weight, (3, 4))
    pixels = keras.Input((*size, 3))
    dense = layers.Dense(4, activation=activation)
    made = keras.Model(pixels, dense(layers.GlobalAveragePooling2D()(pixels)))
    dense.set_weights([kernel, np.linspace(-0.5, 0.5, 4)])
    return made


def adopted(folder: Path, made: Any, pictures: tuple[Path, ...], **changes: Any) -> Predictor:
    path = folder / "network.keras"
    made.save(path)
    fields = {
        "keras_path": path,
        "folder": folder / "own" / "1",
        "labels": ("a", "b", "c", "d"),
        "thresholds": (0.5,) * 4,
        "scaling": "tf",
        "pictures": pictures,
    }
    adopt(Adoption(**fields | changes))
    verify_artifact(folder / "own" / "1")
    return load_predictor(folder / "own" / "1", "litert")


@pytest.mark.parametrize("scaling", list(SCALED))
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_scores_are_those_of_the_network_on_pixels_scaled_as_declared(
    tmp_path: Path, pictures: tuple[Path, ...], scaling: str, activation: str
) -> None:
    weight = 0.01 if scaling in ("raw", "caffe") else 1
    made = network(activation, weight=weight)
    predictor = adopted(tmp_path, made, pictures, scaling=scaling, top_k=2)
    assert (predictor.card.activation, predictor.card.input_size) == (activation, SIZE)
    assert (predictor.card.scaling, predictor.card.top_k) == (scaling, 2)
    expected = np.asarray(made(SCALED[scaling](noise().astype(np.float32))))
    for engine in ("litert", "tensorflow"):
        predictions = load_predictor(tmp_path / "own" / "1", engine).predict(list(noise()))
        scores = np.array([prediction.scores for prediction in predictions])
        np.testing.assert_allclose(scores, expected, atol=0.005)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_network_with_mixed_precision_is_adopted_in_float32(
    tmp_path: Path, pictures: tuple[Path, ...], policy: str
) -> None:
    expected = np.asarray(network()(SCALED["tf"](noise().astype(np.float32))))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inner = network(None)
        pixels = keras.Input((*SIZE, 3))
        made = keras.Model(pixels, layers.Activation("softmax", dtype="float32")(inner(pixels)))
    finally:
        keras.config.set_dtype_policy(before)
    predictor = adopted(tmp_path, made, pictures)
    scores = [prediction.scores for prediction in predictor.predict(list(noise()))]
    np.testing.assert_allclose(scores, expected, atol=0.005)


def test_an_int8_variant_is_added_or_the_reason_is_given(
    tmp_path: Path, pictures: tuple[Path, ...]
) -> None:
    made, many = convolutions(), [tmp_path / f"many-{number}.png" for number in range(104)]
    for number, path in enumerate(many):
        image = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(image // 2 + noise()[number % 3] // 2).save(path)
    path = tmp_path / "network.keras"
    made.save(path)
    adoption = Adoption(
        keras_path=path,
        folder=tmp_path / "own" / "1",
        labels=("a", "b", "c", "d"),
        thresholds=(0.5,) * 4,
        scaling="tf",
        pictures=tuple(many),
        int8=True,
    )
    assert adopt(adoption) is None
    card = verify_artifact(tmp_path / "own" / "1")
    assert card.variants["int8"].metrics["validation_against_float"]["same_first_answer"] >= 0.95
    few = adopt(adoption.model_copy(update={"pictures": pictures}))
    assert few == "its check needs 50 pictures, and there are 1"
    assert not load_card(tmp_path / "own" / "1").variants


def convolutions() -> Any:
    """A network with layers that can be quantized; pictures of three colours are far apart."""
    keras.utils.set_random_seed(2)
    pixels = keras.Input((*SIZE, 3))
    deeper = layers.Conv2D(8, 3, activation="relu")(layers.Conv2D(8, 3, activation="relu")(pixels))
    dense = layers.Dense(4, activation="softmax")
    made = keras.Model(pixels, dense(layers.GlobalAveragePooling2D()(deeper)))
    kernel, bias = dense.get_weights()
    dense.set_weights([kernel * 20, bias])
    return made


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, pictures: tuple[Path, ...]) -> None:
    pictures[1].write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(AdoptionError, match=r"1\.png cannot be read .*: remove it"):
        adopted(tmp_path, network(), pictures)


def test_logits_become_scores(tmp_path: Path, pictures: tuple[Path, ...]) -> None:
    made = network(None)
    predictor = adopted(tmp_path, made, pictures, activation="softmax")
    logits = np.asarray(made(SCALED["tf"](noise().astype(np.float32))))
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = [prediction.scores for prediction in predictor.predict(list(noise()))]
    np.testing.assert_allclose(scores, expected, atol=0.005)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_network_that_ends_in_a_bare_operation_gives_scores(
    tmp_path: Path, pictures: tuple[Path, ...], activation: str, is_nested: bool
) -> None:
    logits = network(None)
    made = keras.Model(logits.input, getattr(keras.ops, activation)(logits.output))
    if is_nested:
        pixels = keras.Input((*SIZE, 3))
        made = keras.Model(pixels, made(pixels))
    predictor = adopted(tmp_path, made, pictures)
    assert predictor.card.activation == activation
    expected = np.asarray(network(activation)(SCALED["tf"](noise().astype(np.float32))))
    scores = [prediction.scores for prediction in predictor.predict(list(noise()))]
    np.testing.assert_allclose(scores, expected, atol=0.005)


def test_a_network_of_any_size_gets_the_size_that_is_given(
    tmp_path: Path, pictures: tuple[Path, ...]
) -> None:
    predictor = adopted(tmp_path, network(size=(None, None)), pictures, input_size=(31, 17))
    assert load_card(tmp_path / "own" / "1").input_size == (31, 17)
    assert len(predictor.predict([np.zeros((31, 17, 3), np.uint8)])) == 1


def test_a_network_that_float16_would_change_keeps_float32(
    tmp_path: Path, pictures: tuple[Path, ...]
) -> None:
    made = network("sigmoid")
    kernel = np.array([[3000.7, -3000.7, 3000.7, 0]] * 3) * [[1], [-1], [0]]
    bias = -np.asarray(SCALED["tf"](noise().astype(np.float32))).mean(axis=(1, 2))[0] @ kernel
    made.layers[-1].set_weights([kernel, bias])
    expected = np.asarray(made(SCALED["tf"](noise().astype(np.float32))))
    predictor = adopted(tmp_path, made, pictures)
    scores = [prediction.scores for prediction in predictor.predict(list(noise()))]
    np.testing.assert_allclose(scores, expected, atol=0.011)

    card = load_card(tmp_path / "own" / "1").model_dump(exclude={"files", "memory_bytes"})
    full = keras.models.load_model(tmp_path / "own" / "1" / "model.keras")
    write_artifact(full, tmp_path / "float16" / "1", card)
    rounded = load_predictor(tmp_path / "float16" / "1", "litert").predict(list(noise()))
    assert np.abs(np.array([one.scores for one in rounded]) - expected).max() > 0.011


def two_inputs() -> Any:
    one, other = keras.Input((*SIZE, 3)), keras.Input((*SIZE, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Add()([one, other]))
    return keras.Model([one, other], layers.Dense(4, "softmax")(pooled))


def channels_first() -> Any:
    pixels = keras.Input((3, *SIZE))
    return keras.Model(pixels, layers.Dense(4, "softmax")(layers.Flatten()(pixels)))


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (network, {"labels": ("a", "b"), "thresholds": (0.5, 0.5)}, "there are 2 labels"),
        (lambda: network(None), {}, "add --activation"),
        (lambda: network("relu"), {}, "ends in relu"),
        (lambda: network("sigmoid"), {"activation": "softmax"}, "ends in sigmoid, not in softmax"),
        (lambda: network(size=(None, None)), {}, "add --input-size"),
        (network, {"input_size": (224, 224)}, "takes 20x28 pixels"),
        (two_inputs, {}, "one input"),
        (channels_first, {}, "channels last"),
    ],
)
def test_a_network_with_a_wrong_description_is_refused(
    tmp_path: Path, pictures: tuple[Path, ...], make: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdoptionError, match=message):
        adopted(tmp_path, make(), pictures, **changes)
    assert not (tmp_path / "own" / "1").exists()


def test_a_file_that_is_not_of_keras_is_refused(tmp_path: Path, pictures: tuple[Path, ...]) -> None:
    with pytest.raises(AdoptionError, match=r"network\.keras cannot be loaded"):
        adopted(tmp_path, _Text(), pictures)


class _Text:
    """Saves something that is not a network."""

    def save(self, path: Path) -> None:
        path.write_text("not a zip")
