"""Registries for tests: folders with versions of a model, copied from the bundled ones."""

import json
import shutil
from pathlib import Path
from typing import Any

from worker.jobs.models.configured import open_catalog
from worker.jobs.settings import load_settings


def add_version(
    registry: Path, version: str, *, bundled: str = "scenes", name: str = "places", **changes: Any
) -> Path:
    """Write <registry>/<name>/<version>/: a bundled model with another name and card."""
    catalog = open_catalog(load_settings(registry_url=None))
    source = catalog.fetch(catalog.resolve(bundled).ref)
    card = json.loads((source / "card.json").read_text())
    card |= {"name": name, "version": version, "calibration": None, "variants": {}, **changes}
    card["files"].pop("keras", None)
    folder = registry / name / version
    folder.mkdir(parents=True)
    for file in card["files"].values():
        shutil.copyfile(source / file["path"], folder / file["path"])
    (folder / "card.json").write_text(json.dumps(card))
    return folder
