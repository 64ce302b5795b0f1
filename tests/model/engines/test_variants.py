"""Which variant of a model runs, and what is measured for that, on a small quantized model."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from model.artifact.card import (
    ArtifactInvalid,
    Card,
    VariantName,
    describe_file,
    load_card,
    write_card,
)
from model.engines import variants
from model.predictor import VariantChoice, load_predictor, verify_artifact
from tests.model.colours import add_int8, calculated, pictures, write_colours

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # Of the converter, which asks for them although the pictures stay uint8.
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "colours" / "1"
    write_colours(folder)
    add_int8(folder)
    return folder


@pytest.fixture
def artifact(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "colours" / "1"))


@pytest.fixture
def speeds_path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "speeds.json"


def write_speeds(path: Path, folder: Path, **picture_ms: float) -> None:
    """Write speeds as if they had been measured on this processor."""
    card = load_card(folder)
    hashes = {
        "float": card.files["litert"].sha256,
        "int8": card.variants["int8"].sha256,
    }
    path.parent.mkdir(exist_ok=True)
    speeds = {hashes[name]: value for name, value in picture_ms.items()}
    variants._write(path, {variants.processor(): speeds, "another processor": {}})


def replace_int8(folder: Path, content: bytes) -> None:
    """Replace the int8 file of an artifact, and its hash in the card."""
    card = load_card(folder)
    path = folder / card.variants["int8"].path
    path.write_bytes(content)
    other = card.variants["int8"].model_copy(update=describe_file(path).model_dump())
    write_card(card.model_copy(update={"variants": {"int8": other}}), folder)


def measure_nothing(*_: object) -> float:
    raise AssertionError("measured again")


@pytest.mark.parametrize(("variant", "slope"), [("float", 1.0), ("int8", 0.5)])
def test_each_variant_scores_with_its_own_file_and_calibration(
    artifact: Path, variant: VariantChoice, slope: float
) -> None:
    predictor = load_predictor(artifact, "litert", variant=variant)
    images = pictures(20)
    scores = [prediction.scores for prediction in predictor.predict(list(images))]
    np.testing.assert_allclose(scores, calculated(images, slope), atol=0.02)
    assert predictor.variant == variant
    assert (predictor.card.sha256 == load_card(artifact).sha256) == (variant == "float")
    assert predictor.picture_ms is None


@pytest.mark.parametrize(
    ("float_ms", "int8_ms", "chosen"), [(7.0, 3.4, "int8"), (7.0, 8.1, "float")]
)
def test_auto_runs_the_variant_that_was_faster_on_this_processor(
    artifact: Path,
    speeds_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    float_ms: float,
    int8_ms: float,
    chosen: str,
) -> None:
    write_speeds(speeds_path, artifact, float=float_ms, int8=int8_ms)
    monkeypatch.setattr(variants, "measure", measure_nothing)
    predictor = load_predictor(artifact, "litert", variant="auto", speeds_path=speeds_path)
    assert (predictor.variant, predictor.picture_ms) == (chosen, min(float_ms, int8_ms))


def test_each_file_is_measured_once_on_each_processor(
    artifact: Path, speeds_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_predictor(artifact, "litert", variant="auto", speeds_path=speeds_path)
    assert first.picture_ms is not None
    assert 0 < first.picture_ms < 1000
    with monkeypatch.context() as patch:
        patch.setattr(variants, "measure", measure_nothing)
        again = load_predictor(artifact, "litert", variant="auto", speeds_path=speeds_path)
        assert (again.variant, again.picture_ms) == (first.variant, first.picture_ms)
        patch.setattr(variants, "processor", lambda: "another processor")
        with pytest.raises(AssertionError, match="measured again"):
            load_predictor(artifact, "litert", variant="auto", speeds_path=speeds_path)

    replace_int8(artifact, (artifact / "model.int8.tflite").read_bytes() + b"another file")
    measured = []

    def measure(_card: Card, _folder: Path, name: VariantName) -> float:
        measured.append(name)
        return 1e9

    monkeypatch.setattr(variants, "measure", measure)
    load_predictor(artifact, "litert", variant="auto", speeds_path=speeds_path)
    assert measured == ["int8"]


def test_a_named_variant_runs_although_another_is_faster(artifact: Path, speeds_path: Path) -> None:
    write_speeds(speeds_path, artifact, float=1.0, int8=100.0)
    predictor = load_predictor(artifact, "litert", variant="int8", speeds_path=speeds_path)
    assert (predictor.variant, predictor.picture_ms) == ("int8", 100.0)


@pytest.mark.parametrize("choice", ["auto", "int8"])
def test_an_artifact_without_the_int8_file_runs_as_float(
    artifact: Path, speeds_path: Path, choice: VariantChoice
) -> None:
    (artifact / "model.int8.tflite").unlink()
    predictor = load_predictor(artifact, variant=choice, speeds_path=speeds_path)
    assert predictor.variant == "float"
    assert predictor.picture_ms is not None


def test_a_variant_that_cannot_run_is_left_out_unless_it_is_named(
    artifact: Path, speeds_path: Path
) -> None:
    replace_int8(artifact, b"no model")
    with capture_logs() as logs:
        predictor = load_predictor(artifact, variant="auto", speeds_path=speeds_path)
    assert predictor.variant == "float"
    assert [line["variant"] for line in logs if line["event"] == "variant_unusable"] == ["int8"]
    with pytest.raises(ValueError, match="Flatbuffer"):
        load_predictor(artifact, variant="int8", speeds_path=speeds_path)
    with pytest.raises(ArtifactInvalid, match="cannot be run"):
        verify_artifact(artifact)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a processor": {"5f": "fast"}}'])
def test_a_damaged_file_of_speeds_is_replaced(
    artifact: Path, speeds_path: Path, content: bytes
) -> None:
    speeds_path.parent.mkdir()
    speeds_path.write_bytes(content)
    load_predictor(artifact, variant="auto", speeds_path=speeds_path)
    (speeds,) = variants._read(speeds_path).values()
    card = load_card(artifact)
    assert set(speeds) == {card.files["litert"].sha256, card.variants["int8"].sha256}


def test_a_variant_is_chosen_although_its_speed_cannot_be_written(
    artifact: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("not a folder")
    speeds_path = tmp_path / "cache" / "speeds.json"
    with capture_logs() as logs:
        predictor = load_predictor(artifact, variant="auto", speeds_path=speeds_path)
    assert predictor.picture_ms is not None
    assert "speeds_not_written" in [line["event"] for line in logs]


def test_a_file_that_quantizes_the_pixels_is_refused(artifact: Path) -> None:
    import keras
    import tensorflow as tf

    images = keras.Input((24, 32, 3))
    means = keras.layers.GlobalAveragePooling2D()(images)
    network = keras.Model(images, keras.layers.Dense(3, activation="sigmoid")(means))
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    samples = pictures(20).astype(np.float32) / 127.5 - 1
    converter.representative_dataset = lambda: ([image[None]] for image in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    replace_int8(artifact, converter.convert())
    with pytest.raises(ArtifactInvalid, match=r"quantizes its input with the scale 0\.00"):
        load_predictor(artifact, variant="int8")
