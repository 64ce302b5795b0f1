"""Training configurations, and the messages about wrong ones."""

from pathlib import Path

import pytest

from model.training.checkpoints import reserved
from model.training.config import PRESETS, DataConfig, TrainingConfig, TrainingError, read_config
from scripts.workshop.train import main
from tests.model.training.pictures import data_settings, training_settings, write_yaml


def test_settings_are_read_as_written(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "training.yaml", **training_settings(tmp_path))
    config = read_config(TrainingConfig, path)
    assert (config.batch_size, config.initial_learning_rate) == (8, 1e-5)
    assert config.model_path == tmp_path / "out/colours/3"


def test_an_override_wins_unless_it_is_none(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "training.yaml", **training_settings(tmp_path))
    config = read_config(TrainingConfig, path, batch_size=4, folds=None)
    assert (config.batch_size, config.folds) == (4, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epocs": 3}, "epocs: there is no such setting: did you mean epochs[?]"),
        ({"base_weights_sha256": "1f"}, "base_weights_sha256: String should match"),
        ({"batch_size": 0}, "batch_size: Input should be greater than 0"),
        ({"model_path": "scenes"}, "model_path: .* such as scenes/1"),
        (
            {"fine_tune_from_block": 17},
            "fine_tune_from_block: .*must be 1 to 16 for MobileNetV2",
        ),
        (
            {"backbone": "EfficientNetV2B0", "fine_tune_from_block": 21},
            "fine_tune_from_block: .*must be 1 to 20 for EfficientNetV2B0",
        ),
        (
            {"backbone": "MobileNet"},
            "backbone: .*'MobileNetV2', .* or 'EfficientNetV2B0' [(]it is 'MobileNet'[)]",
        ),
        (
            {"backbone": "MobileNetV3Small", "backbone_width": 0.5},
            "backbone_width: .*must be one of 0.75, 1.0 for MobileNetV3Small [(]it is 0.5[)]",
        ),
    ],
)
def test_a_wrong_training_setting_is_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write_yaml(tmp_path / "training.yaml", **training_settings(tmp_path) | change)
    with pytest.raises(TrainingError, match=message) as caught:
        read_config(TrainingConfig, path)
    assert str(path) in str(caught.value)
    assert "initial_learning_rate" in str(caught.value), "the known settings are listed"
    assert "default factory" not in str(caught.value), "what the others must be is no mistake"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": []}, "targets: "),
        ({"input_shape": [48, 48, 1]}, r"input_shape must be .*\[48, 48, 3\]"),
        ({"targets": ["red", "split"]}, "must all be different columns"),
        ({"resize_shape": [16, 16], "input_shape": [16, 16, 3]}, "at least 32"),
    ],
)
def test_a_wrong_data_setting_is_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write_yaml(tmp_path / "data.yaml", **data_settings(tmp_path) | change)
    with pytest.raises(TrainingError, match=message):
        read_config(DataConfig, path)


@pytest.mark.parametrize("text", ["a: [", "just words", ""])
def test_a_file_without_settings_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=r"data\.yaml"):
        read_config(DataConfig, path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_ignored(tmp_path: Path, encoding: str) -> None:
    path = write_yaml(tmp_path / "training.yaml", **training_settings(tmp_path))
    config = read_config(TrainingConfig, path)
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert read_config(TrainingConfig, path) == config


def test_a_setting_that_is_there_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("targets: [red]\nimages_base_path: .\ntargets: [sky]\n")
    with pytest.raises(TrainingError, match=r"targets is there twice: remove(.|\n)*line 3"):
        read_config(DataConfig, path)


def test_a_word_that_yaml_reads_as_no_text_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("images_base_path: .\ntargets: [no, red]\n")
    with pytest.raises(TrainingError, match=r"targets\.0: .* string \(it is False\)"):
        read_config(DataConfig, path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"absent\.yaml cannot be read"):
        read_config(DataConfig, tmp_path / "absent.yaml")


def test_fine_tuning_starts_where_the_backbone_says_unless_it_is_set(tmp_path: Path) -> None:
    settings = training_settings(tmp_path) | {"backbone": "MobileNetV3Large"}
    path = write_yaml(tmp_path / "training.yaml", **settings)
    assert read_config(TrainingConfig, path).fine_tune_from_block == 14
    settings.pop("fine_tune_from_block")
    path = write_yaml(tmp_path / "training.yaml", **settings)
    assert read_config(TrainingConfig, path).fine_tune_from_block == 10
    assert read_config(TrainingConfig, path, backbone="MobileNetV2").fine_tune_from_block == 11


def test_the_full_preset_is_the_default() -> None:
    defaults = {name: TrainingConfig.model_fields[name].default for name in PRESETS["full"]}
    assert PRESETS["full"] == defaults


def test_the_shipped_configurations_are_valid() -> None:
    configs = Path("scripts/configs")
    read_config(DataConfig, configs / "scenes_data.yaml")
    training = read_config(
        TrainingConfig, configs / "scenes_full.yaml", model_path=Path("models/scenes/5")
    )
    assert training.base_weights == "imagenet"


def test_the_command_reports_what_is_wrong_and_returns_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_yaml(tmp_path / "data.yaml", **data_settings(tmp_path) | {"colour": "red"})
    training = write_yaml(tmp_path / "training.yaml", **training_settings(tmp_path))
    arguments = ["--csv_path", str(tmp_path / "labels.csv"), "--data_config_path", str(data)]
    assert main([*arguments, "--training_config_path", str(training)]) == 2
    assert "colour: there is no such setting" in capsys.readouterr().err


def test_a_second_training_in_the_same_folder_ends_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = write_yaml(tmp_path / "training.yaml", **training_settings(tmp_path))
    arguments = [str(tmp_path), "--training_config_path", str(training)]
    runs = tmp_path / "runs"
    with reserved(runs / "colours-3"):
        assert main(arguments) == 2
        assert capsys.readouterr().err == (
            f"{runs}/colours-3 is in use by another training: wait for its end, or give this one "
            "another --model or --runs_path\n"
        )
    assert main(arguments) == 2
    assert "says no labels" in capsys.readouterr().err, "the first one has ended"
