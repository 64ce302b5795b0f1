"""Networks of each backbone, with random weights of a file."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from model.predictor import EngineChoice, load_predictor
from model.training.adopt import TOLERANCE
from model.training.adoption import PixelScaling
from model.training.backbones import BACKBONES, BackboneName
from model.training.config import DataConfig, TrainingConfig, TrainingError
from model.training.export import round_to_float16, write_artifact
from model.training.imagenet import keras_network
from model.training.network.build import Network, build_network
from tests.model.training.pictures import write_base_weights

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)

SIDE = 64
SHAPE = (SIDE, SIDE, 3)
BUILT: list[tuple[BackboneName, float, int]] = [
    ("MobileNetV2", 0.35, 1280),
    ("MobileNetV3Small", 0.75, 432),
    ("MobileNetV3Large", 1.0, 960),
    ("EfficientNetV2B0", 1.0, 1280),
]


class Built(NamedTuple):
    """A network, and what Keras makes of the same weights: a `base` that gets scaled pixels."""

    name: BackboneName
    feature_count: int
    weights: Path
    network: Network
    base: Any


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    random = np.random.default_rng(5)
    colours = random.integers(0, 150, (8, 1, 1, 3))
    return (colours + random.integers(0, 100, (8, *SHAPE))).astype(np.uint8)


@pytest.fixture(scope="module", params=BUILT, ids=lambda given: given[0])
def built(
    request: pytest.FixtureRequest,
    pictures: NDArray[np.uint8],
    tmp_path_factory: pytest.TempPathFactory,
) -> Built:
    name, width, feature_count = request.param
    weights = tmp_path_factory.mktemp("base") / "base.weights.h5"
    write_base_weights(weights, pictures, name, width)
    options: dict[str, Any] = {}
    if BACKBONES[name].scales_itself:
        options["include_preprocessing"] = False
    base = keras_network(
        *(name, width),
        include_top=False,
        pooling="avg",
        input_shape=SHAPE,
        weights=weights,
        **options,
    )
    return Built(name, feature_count, weights, start(name, width, weights), base)


def start(name: str, width: float, weights: Path) -> Network:
    data = {"images_base_path": weights.parent, "targets": ["red", "blue"]}
    training = {"model_path": weights.parent / "tiny/1", "base_weights": str(weights)}
    return build_network(
        DataConfig.model_validate(data | {"input_shape": SHAPE, "resize_shape": SHAPE[:2]}),
        TrainingConfig.model_validate(training | {"backbone": name, "backbone_width": width}),
    )


def test_the_features_are_those_of_keras_for_pixels_of_the_scaling(
    built: Built, pictures: NDArray[np.uint8]
) -> None:
    scaling = PixelScaling(scaling=BACKBONES[built.name].scaling)
    factors, offsets = map(np.array, scaling.factors_and_offsets())
    expected = np.asarray(built.base(pictures * factors + offsets, training=False))
    assert expected.shape == (len(pictures), built.feature_count)
    assert np.ptp(expected, axis=0).mean() > 0.1, "pictures are told apart"
    features = np.asarray(built.network.backbone(pictures, training=False))
    assert features == pytest.approx(expected, abs=1e-3)


def test_fine_tuning_can_start_with_each_block(built: Built) -> None:
    blocks = BACKBONES[built.name].blocks
    first = re.compile("(expand|[0-9][a-z]_expand_conv)$")
    names = [layer.name for layer in built.base.layers if isinstance(layer, keras.layers.Conv2D)]
    assert list(blocks) == [name for name in names if first.search(name) and "_se_" not in name]
    for block in blocks:
        upper = keras.Model(built.base.get_layer(block).input, built.base.output)
        assert upper.output_shape == (None, built.feature_count)


def test_the_tuned_backbone_gives_the_same_features_in_training_and_in_serving(
    built: Built,
) -> None:
    tuned = built.network.tuned_backbone
    features = np.random.default_rng(3).normal(size=(4, *tuned.input_shape[1:]))
    while_training = np.asarray(tuned(features, training=True))
    assert while_training == pytest.approx(np.asarray(tuned(features, training=False)))


# `test_training` has an artifact of MobileNetV2, and MobileNetV3Large has the layers of Small.
@pytest.mark.parametrize("built", [BUILT[1], BUILT[3]], ids=lambda given: given[0], indirect=True)
def test_the_engines_give_the_scores_of_keras(
    built: Built, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    network, folder = built.network, tmp_path / "tiny/1"
    before = network.full.get_weights()
    round_to_float16(network.full)
    fields = {
        "labels": ("red", "blue"),
        "thresholds": (0.5, 0.5),
        "activation": "sigmoid",
        "input_size": SHAPE[:2],
    }
    write_artifact(network.backbone, folder, fields, head=network.weights_of_head())
    expected = np.asarray(network.full(pictures, training=False))
    network.full.set_weights(before)
    assert np.ptp(expected, axis=0).min() > 0.02, "pictures are told apart"
    engines: tuple[EngineChoice, ...] = ("litert", "tensorflow")
    for engine in engines:
        predictions = load_predictor(folder, engine).predict(list(pictures))
        scores = np.array([prediction.scores for prediction in predictions])
        assert scores == pytest.approx(expected, abs=TOLERANCE), engine


def test_weights_of_another_width_are_refused(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    weights = write_base_weights(tmp_path / "base.weights.h5", pictures, "MobileNetV2", 0.35)
    with pytest.raises(TrainingError, match=r"base_weights: .* of MobileNetV2 .alpha 0\.5, no top"):
        start("MobileNetV2", 0.5, weights)
