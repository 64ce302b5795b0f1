"""The catalog of models: versions, defaults, and the error for an unknown reference."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from worker.jobs.errors import ModelNotFound
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.folder import ModelFolder


def write_card(folder: Path, name: str, version: str) -> None:
    card = {
        "name": name,
        "version": version,
        "labels": ["a", "b"],
        "thresholds": [0.5, 0.5],
        "memory_bytes": 20_000_000,
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


def test_all_versions_are_listed_newest_first(catalog: ModelCatalog) -> None:
    versions = [(card.name, card.version) for card in catalog.all()]
    assert versions == [("cats", "10"), ("cats", "2"), ("cats", "1"), ("dogs", "3")]
