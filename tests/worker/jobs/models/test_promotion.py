"""Versions that are added, promoted and rolled back, in a folder and on S3."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.images.s3_server import BUCKET, S3Server
from tests.worker.registry import add_version
from worker.jobs.errors import ModelNotFound, ModelUnavailable
from worker.jobs.models import bucket
from worker.jobs.models.catalog import ModelCatalog, Promotions
from worker.jobs.models.configured import open_catalog
from worker.jobs.models.folder import ModelFolder
from worker.jobs.settings import Settings, load_settings

Open = Callable[[], ModelCatalog]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Three versions that are in no registry yet."""
    for version in ("1", "2", "10"):
        add_version(tmp_path / "made", version)
    return tmp_path / "made" / "places"


@pytest.fixture(params=["folder", "s3"])
def open_registry(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Open:
    """Gives the catalog as another process would open it."""
    return lambda: open_catalog(settings_of(request, tmp_path, monkeypatch))


def settings_of(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    if request.param == "folder":
        return load_settings(registry_url=str(tmp_path / "registry"))
    server: S3Server = request.getfixturevalue("s3_server")
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return load_settings(
        registry_url=f"s3://{BUCKET}/{tmp_path.name}", models_cache_path=tmp_path / "cache"
    )


def current(catalog: ModelCatalog) -> str:
    return catalog.resolve("places").version


def test_an_added_version_can_be_named_and_changes_nothing_else(
    open_registry: Open, made: Path
) -> None:
    open_registry().add(made / "1")
    assert current(open_registry()) == "1"
    open_registry().add(made / "10")
    catalog = open_registry()
    assert current(catalog) == "1"
    card = catalog.resolve("places@10")
    folder = catalog.fetch(card.ref)
    assert (folder / "model.tflite").read_bytes() == (made / "10" / "model.tflite").read_bytes()
    assert json.loads((folder / "card.json").read_text())["version"] == "10"


def test_a_version_is_promoted_and_rolled_back(open_registry: Open, made: Path) -> None:
    for version in ("1", "2", "10"):
        open_registry().add(made / version)
    for version in ("2", "10", "10", "1"):
        assert open_registry().promote("places", version).version == version
        assert current(open_registry()) == version
    for version in ("10", "2", "1"):
        assert open_registry().roll_back("places").version == version
        assert current(open_registry()) == version
    with pytest.raises(ModelNotFound, match="before the current one"):
        open_registry().roll_back("places")
    assert current(open_registry()) == "1"


def test_a_version_never_changes(open_registry: Open, made: Path) -> None:
    open_registry().add(made / "1")
    open_registry().add(made / "1")
    card = json.loads((made / "1" / "card.json").read_text())
    (made / "1" / "card.json").write_text(json.dumps(card | {"thresholds": [0.1] * 4}))
    with pytest.raises(ModelUnavailable, match="another version number"):
        open_registry().add(made / "1")
    assert 0.1 not in open_registry().resolve("places@1").thresholds


def test_a_version_with_a_damaged_file_is_not_added(open_registry: Open, made: Path) -> None:
    (made / "1" / "model.tflite").write_bytes(b"half of it")
    with pytest.raises(ModelUnavailable, match=r"model\.tflite of places@1 is missing or differs"):
        open_registry().add(made / "1")
    with pytest.raises(ModelNotFound):
        open_registry().resolve("places")


def test_an_unknown_version_is_not_promoted(open_registry: Open, made: Path) -> None:
    open_registry().add(made / "1")
    with pytest.raises(ModelNotFound, match="places@2"):
        open_registry().promote("places", "2")
    with pytest.raises(ModelNotFound):
        open_registry().roll_back("cows")


def test_the_bundled_models_are_in_the_catalog_too(open_registry: Open, made: Path) -> None:
    open_registry().add(made / "1")
    catalog = open_registry()
    assert {card.name for card in catalog.all()} >= {"places", "scenes", "imagenet"}
    assert catalog.fetch(catalog.resolve("scenes").ref).name == "5"


def test_after_removal_of_a_promoted_version_the_previous_one_is_current(tmp_path: Path) -> None:
    for version in ("1", "2", "3"):
        add_version(tmp_path, version)
    catalog = ModelCatalog([ModelFolder(tmp_path)], "places")
    catalog.registry.promote("places", Promotions(history=("1", "2", "9")))
    assert current(catalog) == "2"


def test_a_broken_card_hides_no_other_model(tmp_path: Path) -> None:
    add_version(tmp_path, "1")
    for name, text in [("broken", "{"), ("other", (tmp_path / "places/1/card.json").read_text())]:
        folder = tmp_path / name / "1"
        folder.mkdir(parents=True)
        (folder / "card.json").write_text(text)
    catalog = ModelCatalog([ModelFolder(tmp_path)], "places")
    assert [(card.name, card.version) for card in catalog.all()] == [("places", "1")]


def test_while_s3_is_unavailable_the_last_listing_is_used(
    s3_server: S3Server, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "LIST_EVERY_S", 0.0)
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    catalog = open_catalog(load_settings(registry_url=url, models_cache_path=tmp_path / "cache"))
    card = catalog.add(made / "1")
    folder = catalog.fetch(card.ref)
    s3_server.stop()
    try:
        assert catalog.resolve("places") == card
        assert catalog.fetch(card.ref) == folder
    finally:
        s3_server.start()


def test_a_copy_from_s3_is_verified(
    s3_server: S3Server, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    catalog = open_catalog(load_settings(registry_url=url, models_cache_path=tmp_path / "cache"))
    card = catalog.add(made / "1")
    s3_server.put(f"{tmp_path.name}/places/1/model.tflite", b"something else")
    with pytest.raises(ModelUnavailable, match="is missing or differs"):
        catalog.fetch(card.ref)
    assert list((tmp_path / "cache").iterdir()) == []
