"""The catalog of models: versions, defaults, and the error for an unknown reference."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker.registry import add_version
from worker.jobs.errors import JobRefused, ModelNotFound
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.folder import ModelFolder


def write_card(
    folder: Path, name: str, version: str, input_size: tuple[int, int] = (224, 224)
) -> None:
    card = {
        "name": name,
        "version": version,
        "labels": ["a", "b"],
        "thresholds": [0.5, 0.5],
        "memory_bytes": 20_000_000,
        "input_size": input_size,
        "created": "2026-01-01",
        "files": {"keras": {"path": "model.keras", "sha256": f"{name}-{version}"}},
        "more": "is passed over",
    }
    path = folder / name / version / "card.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(card))


@pytest.fixture
def catalog(tmp_path: Path) -> ModelCatalog:
    for name, version in [("cats", "1"), ("cats", "2"), ("cats", "10"), ("dogs", "3")]:
        write_card(tmp_path, name, version)
    return ModelCatalog([ModelFolder(tmp_path)], default="dogs")


@pytest.mark.parametrize(
    ("reference", "found"),
    [(None, "dogs-3"), ("cats", "cats-10"), ("cats@2", "cats-2"), ("dogs@3", "dogs-3")],
)
def test_a_reference_finds_one_version(
    catalog: ModelCatalog, reference: str | None, found: str
) -> None:
    assert catalog.resolve(reference).sha256 == found


def test_the_card_of_exactly_one_model_is_found(catalog: ModelCatalog) -> None:
    card = catalog.resolve("cats@2")
    assert catalog.card(card.ref) == card
    with pytest.raises(ModelNotFound, match="no source has cats@2"):
        catalog.card(replace(card.ref, sha256="another"))


@pytest.mark.parametrize("reference", ["cows", "cats@3", "cats@", "../cats", "*", "Cats"])
def test_an_unknown_reference_is_answered_with_the_existing_models(
    catalog: ModelCatalog, reference: str
) -> None:
    with pytest.raises(ModelNotFound, match="cats@10, cats@2, cats@1, dogs@3"):
        catalog.resolve(reference)


def test_several_models_have_one_card_with_the_labels_of_all(tmp_path: Path) -> None:
    add_version(tmp_path, "4", name="places")
    add_version(tmp_path, "1", name="things", bundled="imagenet")
    catalog = ModelCatalog([ModelFolder(tmp_path)], default="places")
    places, things = catalog.resolve("places"), catalog.resolve("things")
    card = catalog.resolve("places+things@1")
    assert card.ref.parts == [places.ref, things.ref]
    assert card.ref.text == "places@4+things@1"
    assert card.ref.key == f"{places.ref.key}+{things.ref.key}"
    assert catalog.resolve(card.ref.text) == card
    assert card.labels[3:5] == ("places/trees", "things/tench")
    assert len(card.thresholds) == len(card.labels) == 1004
    scores = [0.6, 0.1, 0.2, 0.3, *(index / 1000 for index in range(1000))]
    answer, labels = card.answer(scores)
    assert list(answer)[:4] == [f"places/{label}" for label in places.labels]
    assert [answer[label] for label in list(answer)[4:]] == [0.999, 0.998, 0.997, 0.996, 0.995]
    assert labels[0] == "places/beach"
    assert all(label.startswith("things/") for label in labels[1:])
    answer, labels = card.answer(scores, top_k=1, threshold=0.99)
    assert (list(answer.values()), len(labels)) == ([0.6, 0.999], 1)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("cats@1+cats@2", "cats is named twice"),
        (
            "cats+dogs",
            "dogs takes pictures of 96x64 pixels and cats of 224x224 pixels: submit a job",
        ),
    ],
)
def test_models_that_do_not_go_together_are_refused(
    tmp_path: Path, catalog: ModelCatalog, reference: str, reason: str
) -> None:
    write_card(tmp_path, "dogs", "4", input_size=(64, 96))
    with pytest.raises(JobRefused, match=reason):
        catalog.resolve(reference)


def test_all_versions_are_listed_newest_first(catalog: ModelCatalog) -> None:
    versions = [(card.name, card.version) for card in catalog.all()]
    assert versions == [("cats", "10"), ("cats", "2"), ("cats", "1"), ("dogs", "3")]
