"""A whole training run on a tiny data set, and what it leaves behind."""

import csv
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from model.artifact.calibration import calibrated
from model.artifact.card import Card, load_card
from model.artifact.head import Head
from model.images.decode import PREPROCESSING, decode
from model.predictor import EngineChoice, load_predictor
from model.training.config import DataConfig, TrainingConfig
from model.training.data.dataset import read_data
from model.training.export import round_to_float16, write_artifact
from model.training.network.build import Network, build_network
from scripts.workshop.train import main
from tests.model.training.pictures import (
    SIDE,
    TARGETS,
    data_settings,
    training_settings,
    write_base_weights,
    write_pictures,
    write_yaml,
)

pytestmark = [
    pytest.mark.filterwarnings(
        # TensorFlow's tensors do not know NumPy 2's copy argument yet.
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    ),
    # The first test of a process trains the model that most tests look at.
    pytest.mark.timeout(600),
]


TRAIN = ("-m", "scripts.workshop.train")


def train_in(folder: Path) -> int:
    """Trains on the pictures in `folder`; returns the exit code of the command."""
    data = write_yaml(folder / "data.yaml", **data_settings(folder))
    training = write_yaml(folder / "training.yaml", **training_settings(folder))
    arguments = ["--csv_path", str(folder / "labels.csv"), "--data_config_path", str(data)]
    return main([*arguments, "--training_config_path", str(training)])


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = DataConfig.model_validate(data_settings(folder))
    _, images, _ = read_data(write_pictures(folder, 48), config)
    write_base_weights(folder / "base.weights.h5", images)
    assert train_in(folder) == 0
    return folder / "out/colours/3"


# Ends as by SIGKILL after the first epoch of fine-tuning of the last fit.
KILLED = """
import os, signal, sys
from model.training.checkpoints import Checkpoints
from scripts.workshop.train import main

save = Checkpoints.save

def save_and_die(self, key, *values, **arrays):
    save(self, key, *values, **arrays)
    if key == "fold-3-epoch":
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = save_and_die
sys.exit(main())
"""


def start_training(
    folder: Path, log: Path, again: str = "again", program: Sequence[str] = TRAIN
) -> subprocess.Popen[bytes]:
    """Starts to train on the pictures in `folder`, in a process of its own."""
    paths = {
        "--csv_path": folder / "labels.csv",
        "--data_config_path": folder / "data.yaml",
        "--training_config_path": folder / "training.yaml",
        "--model_path": folder / again / "colours/3",
        "--runs_path": folder / again / "runs",
    }
    options = [str(part) for pair in paths.items() for part in pair]
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *program, *options],
            stdout=file,
            stderr=file,
        )


def logged_epochs(path: Path) -> list[dict[str, str]]:
    """The rows of a training log, without the columns that depend on time."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: cell for name, cell in row.items() if name not in ("seconds", "data_wait_share")}
        for row in rows
    ]


def test_a_run_killed_in_the_middle_of_a_fit_ends_with_the_same_model(
    artifact: Path, tmp_path: Path
) -> None:
    folder, log = artifact.parents[2], tmp_path / "killed.log"
    killed = start_training(folder, log, program=("-c", KILLED))
    try:
        assert killed.wait(250) == -signal.SIGKILL, log.read_text()
    finally:
        killed.kill()
        killed.wait()
    assert not (folder / "again/colours/3").exists()

    resumed = start_training(folder, tmp_path / "resumed.log")
    assert resumed.wait(250) == 0, (tmp_path / "resumed.log").read_text()
    told = (tmp_path / "resumed.log").read_text()
    before, _, after = told.partition("fit 4 continues after epoch 1\n")
    assert after, told
    assert "fit 3 of 4, fine-tuning 2 of 2: loss" in before
    assert ", head 1 of" not in after
    assert "100% 48/48" in before  # the pictures that were read
    assert "epochs trained: 100% 248/248" in after
    assert re.search("% of the answers are right, one for each label .95 % interval: ", after)
    assert f"  piqueue models add {folder / 'again/colours/3'}\n" in after
    noise = "cpu_feature_guard|oneDNN|cuda"  # of TensorFlow
    assert not re.search(noise, told)
    assert re.search(noise, (folder / "again/runs/colours-3/run.log").read_text())
    again = folder / "again/colours/3"
    # The files may differ in the names that Keras numbers by what a process made before.
    one, two = (
        keras.models.load_model(folder / "model.keras", compile=False).get_weights()
        for folder in (artifact, again)
    )
    assert all(map(np.array_equal, one, two))
    assert load_card(again).calibration == load_card(artifact).calibration
    assert logged_epochs(again / "training.csv") == logged_epochs(artifact / "training.csv")
    assert not (folder / "again/runs/colours-3/checkpoints").exists()


def test_ctrl_c_ends_a_run_with_a_message_that_says_how_to_resume(
    artifact: Path, tmp_path: Path
) -> None:
    log = tmp_path / "interrupted.log"
    run = start_training(artifact.parents[2], log, "interrupted")
    try:
        deadline = time.monotonic() + 250
        while b"pictures to train on" not in log.read_bytes():
            assert time.monotonic() < deadline, log.read_text()
            assert run.poll() is None, log.read_text()
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130, log.read_text()
    finally:
        run.kill()
        run.wait()
    told = log.read_text()
    assert "stopped: run the same command to continue after the last complete epoch" in told
    assert "Traceback" not in told


def test_an_existing_version_is_not_overwritten(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (artifact / "card.json").read_bytes()
    assert train_in(artifact.parents[2]) == 2
    assert "use the next version number" in capsys.readouterr().err
    assert (artifact / "card.json").read_bytes() == before


def test_the_log_has_every_epoch_and_its_data_wait_share(artifact: Path) -> None:
    with (artifact / "training.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = [(row["fold"], row["stage"], row["epoch"]) for row in rows]
    assert places == [
        (str(fold), stage, str(epoch))
        for fold in range(4)  # twice without each of two
        for stage, count in (("head", 60), ("fine_tuning", 2))
        for epoch in range(count)
    ]
    head = [float(row["loss"]) for row in rows if row["stage"] == "head" and row["fold"] == "0"]
    assert head[-1] < head[0] / 2
    for row in rows:
        assert 0 < float(row["data_wait_share"]) < 1
        assert (row["held_out_loss"] == "") == (row["stage"] == "head")


def test_tensorboard_shows_each_fit_and_stage(artifact: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = artifact.parents[2] / "runs/colours-3/tensorboard"
    assert {path.name for path in folder.iterdir()} == {
        f"{stage}-{fold}" for stage in ("head", "fine_tuning") for fold in range(4)
    }
    shown = EventAccumulator(str(folder / "fine_tuning-1"))
    shown.Reload()
    assert {"loss", "accuracy", "held_out_loss", "data_wait_share"} <= set(shown.Tags()["tensors"])
    assert [event.step for event in shown.Tensors("loss")] == [0, 1]


def test_the_served_scores_are_calibrated(artifact: Path) -> None:
    card = load_card(artifact)
    assert card.calibration is not None
    assert card.metrics["validation"]["expected_calibration_error"] < 0.25
    picture = decode((artifact.parents[2] / "images/001.png").read_bytes(), card.input_size).pixels
    network = keras.models.load_model(artifact / "model.keras", compile=False)
    head = Head.load(artifact / "head.npz", len(card.labels))
    features = np.asarray(network(picture[None], training=False), np.float64)
    raw = 1 / (1 + np.exp(-(features @ head.kernel + head.bias)))
    by_hand = 1 / (
        1
        + np.exp(
            -np.array(card.calibration.slopes) * np.log(raw / (1 - raw))
            - np.array(card.calibration.offsets)
        )
    )
    assert not np.allclose(by_hand, raw, atol=0.01)
    engines: tuple[EngineChoice, ...] = ("litert", "tensorflow")
    for engine in engines:
        (prediction,) = load_predictor(artifact, engine).predict([picture])
        assert prediction.scores == pytest.approx(by_hand[0], abs=2e-3)


@pytest.fixture
def images() -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(5)
    return list(random.integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8))


def test_the_card_says_what_was_trained(artifact: Path) -> None:
    card = load_card(artifact)
    assert (card.name, card.version) == ("colours", "3")
    assert card.labels == tuple(TARGETS)
    assert (card.activation, card.preprocessing) == ("sigmoid", PREPROCESSING)
    assert card.input_size == (SIDE, SIDE)
    assert abs((card.created - datetime.now(UTC).date()).days) <= 1
    made = card.training
    settings = made["settings"]
    assert (settings["folds"], settings["seed"], settings["targets"]) == (2, 1, TARGETS)
    folder = artifact.parents[2]
    base = hashlib.sha256((folder / "base.weights.h5").read_bytes()).hexdigest()
    assert settings["base_weights_sha256"] == base
    assert str(folder) not in card.model_dump_json(), "a card names no folder of this machine"
    assert made["versions"]["keras"] == keras.__version__
    assert len(made["data_sha256"]) == 64
    assert made["pictures"] == {"train": 32, "validation": 16}
    assert (made["groups"], made["near_duplicates"]) == (48, 0)


def test_the_card_says_how_certain_its_figures_are(artifact: Path) -> None:
    metrics = load_card(artifact).metrics
    for split in ("validation", "out_of_fold"):
        intervals = metrics["intervals_95"][split]
        for name in ("binary_accuracy", "binary_accuracy_at_thresholds", "macro_average_precision"):
            low, high = intervals[name]
            assert 0 <= low <= metrics[split][name] <= high <= 1
        assert "expected_calibration_error" in intervals
        assert "expected_calibration_error_uncalibrated" in metrics[split]


def test_the_card_says_how_the_scores_of_the_validation_split_are_distributed(
    artifact: Path,
) -> None:
    counts = load_card(artifact).score_counts
    assert counts.keys() == set(TARGETS)
    assert {sum(of_label) for of_label in counts.values()} == {16}


def test_red_and_blue_are_learned(artifact: Path) -> None:
    metrics = load_card(artifact).metrics
    assert metrics["validation"]["binary_accuracy"] > 0.8
    assert metrics["validation"]["macro_average_precision"] > 0.8
    assert metrics["out_of_fold"]["macro_average_precision"] > 0.7


def test_a_run_leaves_only_the_artifact_and_the_log(artifact: Path) -> None:
    assert {path.name for path in artifact.iterdir()} == {
        "card.json",
        "head.npz",
        "model.keras",
        "model.tflite",
        "training.csv",
    }
    assert [path.name for path in artifact.parent.iterdir()] == ["3"]
    run = artifact.parents[2] / "runs/colours-3"
    names = {"lock", "run.log", "tensorboard", "training.csv"}
    assert {path.name for path in run.iterdir()} == names
    assert (run / "training.csv").read_bytes() == (artifact / "training.csv").read_bytes()


def test_both_engines_give_the_same_scores(artifact: Path, images: list[NDArray[np.uint8]]) -> None:
    litert = load_predictor(artifact, "litert").predict(images)
    tensorflow = load_predictor(artifact, "tensorflow").predict(images)
    scores = np.array([prediction.scores for prediction in litert])
    assert scores.shape == (5, 2)
    assert np.ptp(scores, axis=0).min() > 0, "pictures are told apart"
    assert scores == pytest.approx(np.array([p.scores for p in tensorflow]), abs=1e-3)


def test_the_litert_model_takes_bytes_in_any_batch_size(
    artifact: Path, images: list[NDArray[np.uint8]]
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    one_by_one = load_predictor(artifact, "litert").predict(images)
    interpreter = Interpreter(model_path=str(artifact / "model.tflite"))
    (pictures,) = interpreter.get_input_details()
    (features,) = interpreter.get_output_details()
    assert (pictures["dtype"], features["dtype"]) == (np.uint8, np.float32)
    interpreter.resize_tensor_input(pictures["index"], (5, SIDE, SIDE, 3))
    interpreter.allocate_tensors()
    interpreter.set_tensor(pictures["index"], np.stack(images))
    interpreter.invoke()
    card = load_card(artifact)
    head = Head.load(artifact / "head.npz", len(card.labels))
    raw = head.scores(interpreter.get_tensor(features["index"]), "sigmoid")
    together = calibrated(raw, card.calibration, "sigmoid")
    assert together == pytest.approx(np.array([p.scores for p in one_by_one]), abs=1e-4)


@pytest.fixture(scope="module")
def untrained(artifact: Path) -> Network:
    """The network from which the training of `artifact` started."""
    folder = artifact.parents[2]
    return build_network(
        DataConfig.model_validate(data_settings(folder)),
        TrainingConfig.model_validate(training_settings(folder)),
    )


def test_batch_normalisation_keeps_its_statistics(artifact: Path, untrained: Network) -> None:
    trained = keras.models.load_model(artifact / "model.keras", compile=False)
    before, after = (
        {weight.path: np.asarray(weight) for weight in network.weights}
        for network in (untrained.full, trained)
    )
    moving = [path for path in after if path.endswith(("moving_mean", "moving_variance"))]
    assert len(moving) == 2 * 52
    for path in moving:
        assert np.array_equal(before[path], after[path]), path
    tuned = [path for path in after if "block_16" in path and path.endswith("kernel")]
    assert tuned
    for path in tuned:
        assert not np.allclose(before[path], after[path], rtol=1e-3, atol=0), path


def test_a_seed_fixes_the_first_weights(artifact: Path, untrained: Network) -> None:
    folder = artifact.parents[2]
    data = DataConfig.model_validate(data_settings(folder))
    for seed, same in ((1, True), (2, False)):
        config = TrainingConfig.model_validate(training_settings(folder) | {"seed": seed})
        again = build_network(data, config)
        for one, two in zip(untrained.head.weights, again.head.weights, strict=True):
            assert np.array_equal(one, two) == (same or not np.any(one))


def tiny_model(bias: float) -> Any:
    pictures = keras.Input((8, 8, 3), dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pictures))
    start = keras.initializers.Constant(bias)
    scores = keras.layers.Dense(1, activation="sigmoid", bias_initializer=start)(pooled)
    return keras.Model(pictures, scores)


def test_an_artifact_is_replaced_atomically(tmp_path: Path) -> None:
    folder = tmp_path / "tiny/1"
    card = {
        "labels": ["bright"],
        "thresholds": [0.5],
        "activation": "sigmoid",
        "input_size": (8, 8),
    }
    dark = [np.zeros((8, 8, 3), np.uint8)]
    for bias, expected in ((0.0, 0.5), (2.0, 0.8808)):
        assert write_artifact(tiny_model(bias), folder, card) == load_card(folder)
        (prediction,) = load_predictor(folder, "litert").predict(dark)
        assert prediction.scores == pytest.approx([expected], abs=1e-3)
    with pytest.raises(ValueError, match="one threshold per label"):
        write_artifact(tiny_model(0.0), folder, card | {"thresholds": []})
    (prediction,) = load_predictor(folder, "litert").predict(dark)
    assert prediction.scores == pytest.approx([0.8808], abs=1e-3), "a failed export changes nothing"
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_rounding_leaves_only_values_that_float16_represents() -> None:
    keras.utils.set_random_seed(4)
    pictures = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, use_bias=False)(pictures)
    x = keras.layers.BatchNormalization(gamma_initializer="random_normal")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False)(x)
    x = keras.layers.BatchNormalization(moving_mean_initializer="random_normal")(x)
    network = keras.Model(pictures, x)
    before = [np.asarray(weight) for weight in network.weights]
    round_to_float16(network)
    convolution, norm, depthwise, depthwise_norm = network.layers[1:]
    for layer, following, axis in ((convolution, norm, -1), (depthwise, depthwise_norm, -2)):
        scale = following.gamma / np.sqrt(following.moving_variance + following.epsilon)
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        folded = np.asarray(layer.kernel) * np.reshape(scale, shape)
        assert folded == pytest.approx(folded.astype(np.float16).astype(np.float64), rel=1e-6)
    for weight, old in zip(network.weights, before, strict=True):
        assert np.asarray(weight) == pytest.approx(old, rel=1e-3, abs=1e-4)


def test_missing_base_weights_stop_the_run_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path, 24)
    data = write_yaml(tmp_path / "data.yaml", **data_settings(tmp_path))
    training = write_yaml(tmp_path / "training.yaml", **training_settings(tmp_path))
    arguments = ["--csv_path", str(tmp_path / "labels.csv"), "--data_config_path", str(data)]
    arguments += ["--training_config_path", str(training), "--base_weights", "gone.h5"]
    assert main(arguments) == 2
    assert "there is no file gone.h5" in capsys.readouterr().err


def test_training_sets_tensorflow_up_before_it_is_loaded(tmp_path: Path) -> None:
    code = (
        "import os, sys; from scripts.workshop.train import main;"
        "assert 'tensorflow' not in sys.modules;"
        "main(['--csv_path', 'a', '--data_config_path', 'b', '--training_config_path', 'c']);"
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'], os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    )
    for given, expected in ((None, "1"), ("0", "0")):
        environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
        if given is not None:
            environment["TF_ENABLE_ONEDNN_OPTS"] = given
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.split() == [expected, "true"]


BUNDLED = Path("model/bundled/scenes/5")


def test_the_bundled_model_is_complete_small_and_good_enough() -> None:
    card: Card = load_card(BUNDLED)
    assert card.labels == ("beach", "city", "sunset", "trees")
    assert card.metrics["validation"]["binary_accuracy"] >= 0.97
    assert card.metrics["validation"]["macro_average_precision"] >= 0.975
    assert card.calibration is not None
    assert card.metrics["validation"]["expected_calibration_error"] <= 0.03
    assert card.files["litert"].bytes < 5_000_000
    assert card.files["keras"].bytes < 12_000_000
    int8 = card.variants["int8"]
    assert int8.bytes < card.files["litert"].bytes
    for name in ("macro_average_precision", "binary_accuracy"):
        assert int8.metrics["validation"][name] >= card.metrics["validation"][name] - 0.005
    against = (
        "validation_against_float",
        *(f"taught_on_{one}_against_other" for one in ("float", "int8")),
    )
    for name in against:
        assert int8.metrics[name]["flipped"] <= 0.005
    assert card.sources


def test_an_artifact_never_exists_without_its_training_log(tmp_path: Path) -> None:
    folder, log = tmp_path / "tiny/1", tmp_path / "training.csv"
    card = {
        "labels": ["bright"],
        "thresholds": [0.5],
        "activation": "sigmoid",
        "input_size": (8, 8),
    }
    with pytest.raises(FileNotFoundError):
        write_artifact(tiny_model(0.0), folder, card, log=log)
    assert not folder.exists()  # so that the next run is not refused
    log.write_text("epoch\n")
    write_artifact(tiny_model(0.0), folder, card, log=log)
    assert (folder / "training.csv").read_text() == "epoch\n"
