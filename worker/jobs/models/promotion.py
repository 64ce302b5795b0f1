"""Adding versions to the registry, and which of them is promoted."""

from pathlib import Path

from worker.jobs.errors import ModelNotFound, ModelUnavailable
from worker.jobs.models.cache import verify
from worker.jobs.models.catalog import (
    CARD_NAME,
    Artifact,
    ModelCard,
    ModelCatalog,
    Promotions,
)

# Of a model; a rollback goes no further back.
HISTORY = 50


def add(catalog: ModelCatalog, folder: Path) -> ModelCard:
    """Copy the artifact in `folder` into the registry; jobs go on with the version they had.

    Raises:
        ModelUnavailable: a file is not what the card says, or there is another model of that
            name and version.
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
                f"there is another {card.name}@{card.version} already: a version never changes, so "
                "give this one another number"
            )
    if versions and not catalog.promotions(card.name).history:
        # Else the newest version would hold, which is now this one.
        current = catalog.resolve(card.name).version
        catalog.registry.promote(card.name, Promotions(history=(current,)))
    catalog.registry.put(folder, artifact)
    return card


def promote(catalog: ModelCatalog, name: str, version: str) -> ModelCard:
    """Make a version the one that jobs get who name the model alone.

    Raises:
        ModelNotFound: there is no such version.
    """
    card = catalog.resolve(f"{name}@{version}")
    before = catalog.resolve(name)
    history = catalog.promotions(name).history or (before.version,)
    if history[-1] != card.version:
        history = (*history, card.version)
    catalog.registry.promote(name, Promotions(history=history[-HISTORY:]))
    return card


def roll_back(catalog: ModelCatalog, name: str) -> ModelCard:
    """Go back to the version that was promoted before.

    Raises:
        ModelNotFound: there is no such model, or no version before.
    """
    catalog.resolve(name)
    history = catalog.promotions(name).history[:-1]
    if not history:
        raise ModelNotFound(f"no version of {name} was promoted before the one it has")
    card = catalog.resolve(f"{name}@{history[-1]}")
    catalog.registry.promote(name, Promotions(history=history))
    return card
