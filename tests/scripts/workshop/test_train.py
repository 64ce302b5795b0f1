"""piqueue train: tables and folders of labelled pictures become models of the user's own name.

Here from the folder to scores, by a backbone that `test_training` does not train.
"""

import csv
import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from model.artifact.card import Card, load_card
from model.images.decode import decode
from model.predictor import EngineChoice, load_predictor
from model.training.adopt import TOLERANCE
from model.training.backbones import BackboneName
from model.training.config import DataConfig, TrainingConfig
from model.training.data.dataset import DataProblems, read_annotations, read_data
from model.training.teach import teach
from scripts.commands.__main__ import main
from scripts.local.stack import ROOT
from scripts.workshop.training_view import LOG_NAME, shown
from tests.model.training.pictures import (
    SIDE,
    data_settings,
    training_settings,
    write_base_weights,
    write_pictures,
    write_yaml,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
COLOURS = ("neither", "red", "blue")
BACKBONE: BackboneName = "MobileNetV3Small"
WIDTH = 0.75
ENGINES: tuple[EngineChoice, ...] = ("litert", "tensorflow")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of reddish and bluish pictures, a folder per colour, and settings that end soon."""
    folder = tmp_path_factory.mktemp("source")
    _, images, _ = read_data(write_pictures(folder, 48), config_of(folder))
    write_base_weights(folder / "base.weights.h5", images, BACKBONE, WIDTH)
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = ["name,label,split"]
    for row in rows:
        if (row["red"], row["blue"]) == ("1", "1"):
            continue
        colour = COLOURS[int(row["red"]) + 2 * int(row["blue"])]
        target = folder / "kinds" / colour / row["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "images" / row["name"], target)
        kinds.append(f"{row['name']},{colour},{row['split']}")
    (folder / "kinds.csv").write_text("\n".join(kinds))
    settings = training_settings(folder) | {"backbone": BACKBONE, "backbone_width": WIDTH}
    settings |= {"epochs": 1, "fine_tune_from_block": 10}
    del settings["model_path"]
    write_yaml(folder / "training.yaml", **settings)
    write_yaml(folder / "size.yaml", input_shape=[SIDE, SIDE, 3], resize_shape=[SIDE, SIDE])
    return folder


def config_of(folder: Path) -> DataConfig:
    return DataConfig.model_validate(data_settings(folder))


def config_of_kinds(source: Path, card: Card) -> DataConfig:
    settings = data_settings(source) | {"label_col": "label", "targets": list(card.labels)}
    return DataConfig.model_validate(settings)


def train(source: Path, *arguments: object) -> int:
    settings = {"--training_config_path": "training.yaml", "--data_config_path": "size.yaml"}
    files = [part for name, path in settings.items() for part in (name, str(source / path))]
    return main(["train", *map(str, arguments), *files])


@pytest.mark.timeout(600)
def test_a_folder_for_each_label_trains_a_softmax(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, runs = tmp_path / "models/kinds/1", tmp_path / "runs"
    arguments = ["--model", artifact, "--runs_path", runs]
    assert train(source, source / "kinds", *arguments) == 0, capsys.readouterr().err
    card = load_card(artifact)
    assert (card.name, card.activation, card.labels) == ("kinds", "softmax", ("blue", *COLOURS[:2]))
    assert card.thresholds == (0.5,) * 3
    # With so few pictures, a temperature need not be better out of fold.
    assert card.calibration is None or len(set(card.calibration.slopes)) == 1
    assert card.sources == ()
    assert card.training["settings"]["backbone"] == BACKBONE

    report = tmp_path / "report.html"
    (after_training,) = re.findall(
        "^  piqueue (evaluate .*)", capsys.readouterr().out, re.MULTILINE
    )
    evaluated = (
        (shlex.split(after_training), 8, card.metrics["validation"]["accuracy"]),
        (["evaluate", str(artifact), str(source / "kinds")], 36, None),
        (["evaluate", str(artifact), str(source / "kinds.csv")], 36, None),
    )
    for command, count, accuracy in evaluated:
        assert main([*command, "-o", str(report)]) == 0
        metrics = json.loads(report.with_suffix(".json").read_text())
        assert metrics["pictures"] == count
        assert accuracy is None or metrics["overall"]["accuracy"] == pytest.approx(
            accuracy, abs=1e-3
        )
        assert metrics["overall"]["accuracy"] > 0.7

    annotations = read_annotations(
        runs / "kinds-1/labels.csv", config_of_kinds(source, card), DataProblems(runs)
    )
    images = [
        decode((source / "kinds" / name).read_bytes(), card.input_size).pixels
        for name in annotations.names
    ]
    litert, keras = (load_predictor(artifact, engine).predict(images) for engine in ENGINES)
    scores = np.array([one.scores for one in litert])
    assert np.sum(scores, axis=1) == pytest.approx(np.ones(36), abs=1e-4)
    assert scores == pytest.approx(np.array([one.scores for one in keras]), abs=TOLERANCE)

    assert card.backbone is not None
    features = np.array([one.features[card.backbone].values for one in litert])
    taught = teach(features, annotations, card.labels, "softmax")
    assert taught.metrics["out_of_fold"]["accuracy"] > 0.7


@pytest.mark.filterwarnings("default")
def test_the_log_of_a_run_gets_what_libraries_log_and_the_terminal_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = TrainingConfig(model_path=tmp_path / "mine/1", runs_path=tmp_path)
    logger = logging.getLogger("tensorflow")
    before = logger.handlers
    # As TensorFlow does it on import.
    logger.handlers = [logging.StreamHandler(sys.stderr)]
    try:
        with shown(training):
            logger.warning("9 calls triggered retracing")
            warnings.warn("of Keras", stacklevel=1)
        assert capsys.readouterr().err == ""
        logger.warning("after the run")
        assert capsys.readouterr().err == "after the run\n"
    finally:
        logger.handlers = before
    log = (training.run_path / LOG_NAME).read_text()
    assert log.count("9 calls triggered retracing") == log.count("UserWarning: of Keras") == 1
    assert "after the run" not in log


def check(source: Path, *arguments: object) -> int:
    return train(source, *arguments, "--model", source / "models/mine/1", "--check_only")


def test_a_column_of_labels_and_columns_of_0_and_1_are_found(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(source, source / "kinds.csv") == 0
    assert "36 pictures can be used" in capsys.readouterr().out
    assert check(source, "--csv_path", source / "labels.csv") == 0
    assert "48 pictures can be used" in capsys.readouterr().out


def test_a_label_that_is_not_among_the_targets_is_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_yaml(tmp_path / "data.yaml", label_col="label", targets=["red", "blue"])
    arguments = ["--images", str(source / "images"), "--data_config_path", str(data)]
    arguments += ["--model", str(tmp_path / "mine/1"), "--check_only"]
    arguments += ["--runs_path", str(tmp_path / "runs")]
    assert main(["train", str(source / "kinds.csv"), *arguments]) == 2
    assert "row 2: column label is 'neither': write red or blue" in capsys.readouterr().err


def test_the_folders_train_and_val_are_splits(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, names in (("val", "[0-3]*"), ("train", "[4-9]*")):
        for colour in COLOURS:
            (tmp_path / "kinds" / split / colour).mkdir(parents=True)
            for path in (source / "kinds" / colour).glob(f"??{names}"):
                shutil.copy(path, tmp_path / "kinds" / split / colour)
    runs = tmp_path / "runs"
    assert check(source, tmp_path / "kinds", "--runs_path", runs) == 0
    table = (runs / "mine-1/labels.csv").read_text().splitlines()
    assert table[:2] == ["name,label,split", "train/blue/006.png,blue,train"]
    assert "val/red/001.png,red,val" in table


def test_a_folder_that_does_not_say_the_labels_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(source, source / "images") == 2
    assert "000.png is in no folder of a label" in capsys.readouterr().err
    shutil.copytree(source / "kinds/red", tmp_path / "kinds/red")
    assert check(source, tmp_path / "kinds") == 2
    assert "at least two folders of pictures" in capsys.readouterr().err


def test_pictures_that_are_not_beside_the_table_are_asked_for(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = shutil.copy(source / "labels.csv", tmp_path)
    assert check(source, table) == 2
    assert "000.png is not beside it: give --images FOLDER" in capsys.readouterr().err
    assert check(source, table, "--images", source / "images") == 0


@pytest.mark.parametrize("registry", ["bundled", "registry"])
def test_a_model_that_jobs_would_use_at_once_is_not_written(
    source: Path,
    tmp_path: Path,
    registry: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIQUEUE_REGISTRY_URL", str(tmp_path / "registry"))
    monkeypatch.setenv("PIQUEUE_ARTIFACTS_PATH", str(tmp_path / "bundled"))
    model = tmp_path / registry / "scenes/5"
    assert train(source, source / "kinds.csv", "--model", model) == 2
    told = capsys.readouterr().err
    assert f"is in the registry {tmp_path / registry}" in told
    assert "write models/scenes/5, and add it with piqueue models add" in told
    assert not model.exists()


def test_the_name_of_the_model_is_asked_for(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(source, source / "kinds.csv") == 2
    assert "model_path: Field required" in capsys.readouterr().err


# Fails as the import of opencv-python does without libGL.
NO_DISPLAY = """
import sys

class NoDisplay:
    def find_spec(self, name, *_):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file", name="cv2")

sys.meta_path.insert(0, NoDisplay())
from scripts.commands.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_opencv_that_needs_a_display_is_reported(source: Path) -> None:
    arguments: list[str | Path] = ["train", source / "kinds.csv", "--images", source / "images"]
    arguments += ["--model", source / "mine/1", "--runs_path", source / "runs"]
    answer = subprocess.run(
        [sys.executable, "-c", NO_DISPLAY, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 2, answer.stderr
    assert "opencv-contrib-python-headless" in answer.stderr


def test_the_installed_opencv_needs_no_display() -> None:
    import cv2

    assert re.findall(r"GUI: +(\w+)", cv2.getBuildInformation()) == ["NONE"]
