"""The contract of all engines, on a small model whose scores can be calculated by hand."""

import gc
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hiredis
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from structlog.testing import capture_logs

from model.artifact.card import ArtifactInvalid
from model.engines import tensorflow as tensorflow_engine
from model.engines.litert import LiteRTPredictor
from model.engines.tensorflow import TensorFlowPredictor
from model.predictor import Predictor, gpu_usable, load_predictor
from tests.model.colours import (
    HEIGHT,
    WIDTH,
    calculated,
    pictures,
    write_colours,
    write_colours_apart,
)
from tests.model.onnx_networks import (
    adopted,
    colours,
    write_colours_onnx,
    write_colours_onnx_apart,
)

# Keras hands NumPy an array type that NumPy 2.4 finds old-fashioned.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BATCH_SIZE = 6


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "colours" / "1"
    write_colours(folder)
    return folder


@pytest.fixture(scope="module")
def artifact_with_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "colours" / "1"
    write_colours_apart(folder)
    return folder


@pytest.fixture(scope="module")
def onnx_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "colours" / "1"
    write_colours_onnx(folder)
    return folder


@pytest.fixture(scope="module")
def onnx_artifact_with_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "colours" / "1"
    write_colours_onnx_apart(folder)
    return folder


@pytest.fixture(scope="module")
def onnx_artifact_of_four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "colours" / "1"
    adopted(folder, colours(batch=4), activation="sigmoid")
    return folder


@pytest.fixture(
    scope="module",
    params=[
        *("litert artifact", "tensorflow artifact", "onnx onnx_artifact"),
        *("litert artifact_with_head", "tensorflow artifact_with_head"),
        *("onnx onnx_artifact_with_head", "onnx onnx_artifact_of_four"),
    ],
)
def predictor(request: pytest.FixtureRequest) -> Predictor:
    engine, written = request.param.split()
    folder: Path = request.getfixturevalue(written)
    return load_predictor(folder, engine, threads=2, batch_size=BATCH_SIZE)


def predicted(predictor: Predictor, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.array([prediction.scores for prediction in predictor.predict(list(images))])


@pytest.mark.parametrize("count", [1, 2, BATCH_SIZE, BATCH_SIZE + 1, 5 * BATCH_SIZE - 1])
def test_each_image_gets_its_own_scores_in_label_order(predictor: Predictor, count: int) -> None:
    images = pictures(count)
    np.testing.assert_allclose(predicted(predictor, images), calculated(images), atol=0.005)


def test_no_images_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


def test_scores_are_plain_floats(predictor: Predictor) -> None:
    (prediction,) = predictor.predict(list(pictures(1)))
    assert [type(score) for score in prediction.scores] == [float, float, float]


def test_images_get_the_same_scores_alone_and_in_a_batch(predictor: Predictor) -> None:
    images = np.stack([np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in (0, 255, 0)])
    alone = [predictor.predict([image])[0].scores for image in images]
    np.testing.assert_allclose(predicted(predictor, images), alone, atol=1e-6)
    np.testing.assert_allclose(alone, calculated(images), atol=0.005)


def test_read_only_and_strided_images_are_scored(predictor: Predictor) -> None:
    wide = pictures(2)[:, :, ::-1, ::-1]
    wide.flags.writeable = False
    np.testing.assert_allclose(predicted(predictor, wide), calculated(wide), atol=0.005)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((HEIGHT, WIDTH, 3), np.float32),
        np.zeros((WIDTH, HEIGHT, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH), np.uint8),
        np.zeros((HEIGHT, WIDTH, 4), np.uint8),
        np.zeros((1, HEIGHT, WIDTH, 3), np.uint8),
    ],
    ids=lambda image: f"{image.dtype}-{image.shape}",
)
def test_an_image_of_another_shape_or_type_is_refused(
    predictor: Predictor, image: NDArray[Any]
) -> None:
    with pytest.raises(ValueError, match=r"image 1 is .*; colours takes uint8 \(24, 32, 3\)"):
        predictor.predict([pictures(1)[0], image])
    assert len(predictor.predict(list(pictures(1)))) == 1


def test_threads_get_the_scores_of_their_own_images(predictor: Predictor) -> None:
    groups = [pictures(1 + seed % 9, seed) for seed in range(60)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda images: predicted(predictor, images), groups))
    for scores, images in zip(results, groups, strict=True):
        np.testing.assert_allclose(scores, calculated(images), atol=0.005)


def test_tensorflow_traces_nothing_after_warm_up(artifact: Path) -> None:
    predictor = TensorFlowPredictor(load_predictor(artifact, "litert").card, artifact, BATCH_SIZE)
    predictor.warm_up()
    function = predictor.network.traced  # type: ignore[attr-defined]
    traced = function.experimental_get_tracing_count()
    assert traced == 4  # batches of 1, 2, 4 and 6
    for count in range(1, 3 * BATCH_SIZE):
        predictor.predict(list(pictures(count)))
    assert function.experimental_get_tracing_count() == traced


def interpreters() -> int:
    gc.collect()  # those of earlier tests, which would end at any time
    return sum(isinstance(thing, Interpreter) for thing in gc.get_objects())


def test_litert_creates_its_interpreters_in_warm_up_and_none_later(artifact: Path) -> None:
    before = interpreters()
    predictor = load_predictor(artifact, "litert", threads=3)
    assert interpreters() == before + 1  # so that a broken model is detected at once
    predictor.warm_up()
    assert interpreters() == before + 3
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: predictor.predict(list(pictures(5))), range(40)))
    assert interpreters() == before + 3


def test_litert_creates_no_interpreter_that_no_thread_needs(artifact: Path) -> None:
    before = interpreters()
    predictor = load_predictor(artifact, "litert", threads=3)
    for _ in range(10):
        predictor.predict(list(pictures(1)))
    assert interpreters() == before + 1


def test_a_model_that_contradicts_its_card_is_refused(artifact: Path, tmp_path: Path) -> None:
    card = json.loads((artifact / "card.json").read_text())
    (tmp_path / "model.tflite").write_bytes((artifact / "model.tflite").read_bytes())
    card |= {"labels": ["red", "green"], "thresholds": [0.5, 0.5]}
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactInvalid, match=r"model\.tflite takes .* export the model again"):
        load_predictor(tmp_path, "litert")


def test_tensorflow_names_its_missing_file(artifact: Path, tmp_path: Path) -> None:
    for name in ("card.json", "model.tflite"):
        (tmp_path / name).write_bytes((artifact / name).read_bytes())
    with pytest.raises(ArtifactInvalid, match=r"model\.keras is missing"):
        load_predictor(tmp_path, "tensorflow")
    assert load_predictor(tmp_path, "litert").card.name == "colours"


def test_auto_is_tensorflow_with_a_usable_gpu(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia0").touch()
    with capture_logs() as logs:
        assert not gpu_usable(tmp_path)  # a driver alone is not enough
    assert [line["event"] for line in logs] == ["gpu_unused"]
    monkeypatch.setattr(tensorflow_engine, "has_gpu", lambda: True)
    assert gpu_usable(tmp_path)
    monkeypatch.setattr("model.predictor.gpu_usable", lambda: True)
    assert isinstance(load_predictor(artifact, "auto"), TensorFlowPredictor)


def test_an_installation_for_gpus_says_why_it_uses_none(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logs:
        assert not gpu_usable(tmp_path)
    assert logs == []  # an installation for CPUs
    library = tmp_path / "nvidia" / "cuda_runtime" / "lib" / "libcudart.so.12"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("card.json", "model.tflite"):
        (tmp_path / name).write_bytes((artifact / name).read_bytes())
    with capture_logs() as logs:
        assert not gpu_usable(tmp_path)
        assert isinstance(load_predictor(tmp_path, "auto"), LiteRTPredictor)
    assert [line["event"] for line in logs] == ["gpu_unused", "gpu_unused"]
    assert "there is no GPU: give this container" in logs[0]["reason"]
    assert "has no Keras model" in logs[1]["reason"]


def test_the_cuda_library_that_tensorflow_does_not_find_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "nvidia" / "cusolver" / "lib" / "libcusolver.so.11"
    library.parent.mkdir(parents=True)
    library.write_bytes(Path(hiredis.hiredis.__file__).read_bytes())  # any will do
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    tensorflow_engine.has_gpu()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert str(library) in Path("/proc/self/maps").read_text()


def test_auto_is_litert_without_a_gpu_and_never_imports_tensorflow(
    artifact: Path, tmp_path: Path
) -> None:
    script = f"""
import sys
from pathlib import Path
from model.predictor import gpu_usable, load_predictor
assert not gpu_usable(Path({str(tmp_path)!r}))
predictor = load_predictor(Path({str(artifact)!r}), "litert" if gpu_usable() else "auto")
print(type(predictor).__name__, "tensorflow" in sys.modules)
"""
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert finished.stdout.split() == ["LiteRTPredictor", "False"]
