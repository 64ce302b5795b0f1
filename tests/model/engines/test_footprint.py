"""The memory of a model according to its card, compared with that of a predictor."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest
from keras import layers

from model.artifact.card import ArtifactInvalid, load_card
from model.engines.footprint import measure
from model.training.export import write_artifact

BUNDLED = Path(__file__).parents[3] / "model" / "bundled"
THREADS = 4
SIZE = (192, 256)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some kB that needs many MB to run."""
    pictures = keras.Input((*SIZE, 3), dtype="uint8")
    hidden = layers.Conv2D(64, 3, activation="relu")(layers.Rescaling(1 / 255)(pictures))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 3, activation="relu")(hidden))
    card = {
        "labels": ("one",),
        "thresholds": (0.5,),
        "activation": "sigmoid",
        "input_size": SIZE,
    }
    folder = tmp_path_factory.mktemp("artifacts") / "wide" / "1"
    network = keras.Model(pictures, layers.Dense(1, activation="sigmoid")(pooled))
    write_artifact(network, folder, card, with_keras=False)
    return folder


def grown_bytes(folder: Path) -> int:
    command = [sys.executable, "-m", "tests.model.engines.growth", str(folder), str(THREADS)]
    return int(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)


@pytest.mark.parametrize("name", ["scenes", "imagenet", "wide"])
def test_a_predictor_uses_the_memory_of_its_card_for_each_thread(
    name: str, request: pytest.FixtureRequest
) -> None:
    if name == "wide":
        folder: Path = request.getfixturevalue("wide")
        assert (folder / "model.tflite").stat().st_size < 200_000
    else:
        folder = max((BUNDLED / name).iterdir())
    stated_bytes = load_card(folder).memory_bytes
    assert stated_bytes > 10_000_000
    assert grown_bytes(folder) == pytest.approx(stated_bytes * THREADS, rel=0.2)


def test_a_second_measurement_agrees(wide: Path) -> None:
    stated_bytes = load_card(wide).memory_bytes
    assert measure(wide / "model.tflite") == pytest.approx(stated_bytes, rel=0.01)


def test_the_message_names_a_file_that_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no model")
    with pytest.raises(
        ArtifactInvalid, match=r"model\.tflite cannot be run \(ValueError: .*\): export"
    ):
        measure(path)
