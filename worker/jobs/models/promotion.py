"""Adds versions to the registry, promotes them and rolls back."""

from pathlib import Path

from worker.jobs.errors import ModelNotFound, ModelUnavailable
from worker.jobs.models.cache import verify
from worker.jobs.models.catalog import CARD_NAME, Artifact, ModelCard, ModelCatalog, Promotions

# The most versions that promoted.json keeps.
HISTORY = 50


def add(catalog: ModelCatalog, folder: Path) -> ModelCard:
    """Copy the artifact in `folder` into the registry; the promoted version stays the same.

    Raises:
        ModelUnavailable: the hash of a file differs, or another model has that name and version.
    """
    artifact = Artifact.parse((folder / CARD_NAME).read_bytes())
    verify(folder, artifact)
    card = artifact.card
    versions = [known for known in catalog.all() if known.name == card.name]
    for known in versions:
        if int(known.version) == int(card.version):
            if known == card:
                return card
            raise ModelUnavailable(
                f"another {card.name}@{card.version} exists, and a version never changes: use "
                "another version number"
            )
    if versions and not catalog.promotions(card.name).history:
        # Without a promotion the newest version is current, which would now be this one.
        current = catalog.resolve(card.name).version
        catalog.registry.promote(card.name, Promotions(history=(current,)))
    catalog.registry.put(folder, artifact)
    return card


def promote(catalog: ModelCatalog, name: str, version: str) -> ModelCard:
    """Promote a version: jobs that name only the model get it.

    Raises:
        ModelNotFound: the version does not exist.
    """
    card = catalog.resolve(f"{name}@{version}")
    before = catalog.resolve(name)
    history = catalog.promotions(name).history or (before.version,)
    if history[-1] != card.version:
        history = (*history, card.version)
    catalog.registry.promote(name, Promotions(history=history[-HISTORY:]))
    return card


def roll_back(catalog: ModelCatalog, name: str) -> ModelCard:
    """Promote the previously promoted version again.

    Raises:
        ModelNotFound: the model does not exist, or no earlier version was promoted.
    """
    catalog.resolve(name)
    history = catalog.promotions(name).history[:-1]
    if not history:
        raise ModelNotFound(f"no version of {name} was promoted before the current one")
    card = catalog.resolve(f"{name}@{history[-1]}")
    catalog.registry.promote(name, Promotions(history=history))
    return card
