"""The card of an artifact: its contents, and the reasons to refuse an artifact."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from model.artifact.card import (
    ArtifactInvalid,
    Card,
    describe_file,
    find_file,
    load_card,
    write_card,
)
from model.images.decode import PREPROCESSING


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.tflite").write_bytes(b"litert weights")
    (tmp_path / "model.keras").write_bytes(b"keras weights")
    write_card(card(tmp_path), tmp_path)
    return tmp_path


def card(folder: Path, **changes: Any) -> Card:
    fields: dict[str, Any] = {
        "name": "scenes",
        "version": "3",
        "labels": ("beach", "city"),
        "thresholds": (0.4, 0.6),
        "activation": "sigmoid",
        "input_size": (224, 192),
        "preprocessing": PREPROCESSING,
        "files": {
            "litert": describe_file(folder / "model.tflite"),
            "keras": describe_file(folder / "model.keras"),
        },
        "memory_bytes": 17_900_000,
        "metrics": {"validation": {"binary_accuracy": 0.97}},
        "sources": [{"name": "pictures", "terms": "CC0", "count": 12}],
        "created": datetime.date(2026, 11, 22),
    }
    return Card(**fields | changes)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_card_is_read_back_as_written(folder: Path) -> None:
    assert load_card(folder) == card(folder)


def test_the_counts_of_scores_are_those_of_its_labels(folder: Path) -> None:
    counts = {"beach": (3,) + (0,) * 9, "city": (0,) * 9 + (3,)}
    write_card(card(folder, score_counts=counts), folder)
    assert load_card(folder).score_counts == counts
    for wrong in ({"beach": (3,) * 10}, counts | {"city": (3,)}):
        edit(folder, score_counts=wrong)
        with pytest.raises(ArtifactInvalid, match="score_counts must have 10 counts of each label"):
            load_card(folder)


def test_a_card_is_plain_json(folder: Path) -> None:
    written = json.loads((folder / "card.json").read_text())
    assert written["labels"] == ["beach", "city"]
    assert written["thresholds"] == [0.4, 0.6]
    assert written["input_size"] == [224, 192]
    assert written["created"] == "2026-11-22"
    assert written["files"]["litert"]["path"] == "model.tflite"
    assert written["files"]["litert"]["bytes"] == len(b"litert weights")
    assert written["memory_bytes"] == 17_900_000
    assert written["sources"] == [{"name": "pictures", "terms": "CC0", "count": 12}]


def test_a_model_is_identified_by_the_hash_of_its_litert_file(folder: Path) -> None:
    whole = load_card(folder)
    assert whole.sha256 == whole.files["litert"].sha256
    keras_only = card(folder, files={"keras": whole.files["keras"]})
    assert keras_only.sha256 == whole.files["keras"].sha256


def test_a_card_cannot_be_changed(folder: Path) -> None:
    with pytest.raises(ValidationError):
        load_card(folder).version = "4"  # type: ignore[misc]


def test_a_changed_file_is_refused_by_name(folder: Path) -> None:
    (folder / "model.keras").write_bytes(b"keras Weights")
    with pytest.raises(ArtifactInvalid, match=r"model\.keras is not the file .* copy"):
        load_card(folder)


def test_an_artifact_may_lack_the_file_of_the_other_engine(folder: Path) -> None:
    (folder / "model.keras").unlink()
    whole = load_card(folder)
    assert find_file(whole, folder, "litert") == folder / "model.tflite"
    with pytest.raises(ArtifactInvalid, match=r"model\.keras is missing: copy"):
        find_file(whole, folder, "keras")


def test_a_file_that_the_card_does_not_name_is_not_found(folder: Path) -> None:
    litert_only = card(folder, files={"litert": describe_file(folder / "model.tflite")})
    with pytest.raises(ArtifactInvalid, match="names no keras file"):
        find_file(litert_only, folder, "keras")


def with_int8(folder: Path, **changes: Any) -> Card:
    """The card of an artifact that has an int8 file too, with its own calibration."""
    (folder / "model.int8.tflite").write_bytes(b"int8 weights")
    calibration = {"slopes": (1.5, 0.5), "offsets": (0.1, -0.1)}
    variant = {
        **describe_file(folder / "model.int8.tflite").model_dump(),
        "calibration": calibration,
        "metrics": {"validation": {"binary_accuracy": 0.96}},
    }
    return card(folder, **{"variants": {"int8": variant | changes}})


def test_a_variant_has_its_own_file_calibration_and_metrics(folder: Path) -> None:
    write_card(with_int8(folder), folder)
    whole = load_card(folder)
    assert whole.of_variant("float") is whole
    int8 = whole.of_variant("int8")
    assert find_file(int8, folder, "litert") == folder / "model.int8.tflite"
    assert find_file(int8, folder, "keras") == folder / "model.keras"
    assert int8.sha256 != whole.sha256
    assert int8.calibration is not None
    assert int8.calibration.slopes == (1.5, 0.5)
    assert int8.metrics["validation"]["binary_accuracy"] == 0.96
    assert (int8.labels, int8.thresholds) == (whole.labels, whole.thresholds)


def test_a_changed_file_of_a_variant_is_refused_by_name(folder: Path) -> None:
    write_card(with_int8(folder), folder)
    (folder / "model.int8.tflite").write_bytes(b"other weights")
    with pytest.raises(ArtifactInvalid, match=r"model\.int8\.tflite is not the file .* copy"):
        load_card(folder)


def test_variants_that_contradict_the_rest_of_a_card_are_refused(folder: Path) -> None:
    one_label = {"slopes": (1.0,), "offsets": (0.0,)}
    with pytest.raises(ValidationError, match="one slope and one offset per label"):
        with_int8(folder, calibration=one_label)
    with pytest.raises(ValidationError, match="must be different files"):
        with_int8(folder, path="model.tflite")
    whole = with_int8(folder)
    keras_only = {"keras": whole.files["keras"]}
    with pytest.raises(ValidationError, match="variants must have a litert file"):
        card(folder, files=keras_only, variants=whole.variants)
    with pytest.raises(ValidationError, match=r"variants\.int4"):
        card(folder, variants={"int4": whole.variants["int8"]})


def test_a_model_trained_with_another_preprocessing_is_refused(folder: Path) -> None:
    edit(folder, preprocessing="bgr-crop-nearest-0")
    with pytest.raises(ArtifactInvalid, match=rf"bgr-crop-nearest-0.*{PREPROCESSING}.*train"):
        load_card(folder)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactInvalid, match=r"card\.json is missing"):
        load_card(tmp_path)


def test_a_card_that_is_not_json_is_refused(folder: Path) -> None:
    (folder / "card.json").write_text("{")
    with pytest.raises(ArtifactInvalid, match=r"card\.json is not a valid card"):
        load_card(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": [0.5]}, "one threshold per label"),
        ({"thresholds": [0.5, 1.5]}, "less than or equal to 1"),
        ({"labels": ["beach", "beach"]}, "unique"),
        ({"labels": [], "thresholds": []}, "labels"),
        ({"input_size": [0, 224]}, "input_size"),
        ({"activation": "tanh"}, "activation"),
        ({"version": "latest"}, "version"),
        ({"calibration": {"slopes": [1.0], "offsets": [0.0, 0.0]}}, "one slope and one offset"),
        ({"calibration": {"slopes": [1.0, -1.0], "offsets": [0.0, 0.0]}}, "greater than 0"),
        ({"name": "../scenes"}, "name"),
        ({"files": {}}, "files"),
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"files": {"litert": {"path": "../m", "sha256": "0" * 64, "bytes": 1}}}, "path"),
        ({"threshold": 0.5}, "threshold"),
    ],
)
def test_an_inconsistent_card_is_refused(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    edit(folder, **changes)
    with pytest.raises(ArtifactInvalid, match=message):
        load_card(folder)
