"""Which models there are: the part of each artifact's card that the job contract needs."""

import json
import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from worker.jobs.errors import ModelNotFound
from worker.jobs.record import ModelRef

_REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9_-]*)(@(?P<version>[0-9]+))?")


class ModelCard(BaseModel):
    """What a job needs to know of its model: its exact version and what its scores mean."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    sha256: str
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    created: date

    @property
    def ref(self) -> ModelRef:
        """Give what names the model."""
        return ModelRef(self.name, self.version, self.sha256)


class ModelCatalog:
    """The artifacts in a folder, `<name>/<version>/card.json`, looked up anew each time."""

    def __init__(self, folder: Path, default: str) -> None:
        self._folder = folder
        self._default = default

    def all(self) -> list[ModelCard]:
        """List every version of every model, newest version of each first."""
        return sorted(self._cards("*"), key=lambda card: (card.name, -int(card.version)))

    def resolve(self, reference: str | None) -> ModelCard:
        """Find `name@version`, the newest version of `name`, or of the default model for None.

        Raises:
            ModelNotFound: names the models there are.
        """
        match = _REFERENCE.fullmatch(reference or self._default)
        if match:
            cards = {int(card.version): card for card in self._cards(match["name"])}
            version = int(match["version"]) if match["version"] else max(cards, default=0)
            if version in cards:
                return cards[version]
        known = ", ".join(f"{card.name}@{card.version}" for card in self.all()) or "none"
        raise ModelNotFound(f"no model {reference or self._default!r}; there are: {known}")

    def _cards(self, name: str) -> Iterator[ModelCard]:
        for path in self._folder.glob(f"{name}/*/card.json"):
            yield _read_card(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _read_card(path: Path, _written_ns: int) -> ModelCard:
    """Read a card, once for each time it was written."""
    card = json.loads(path.read_bytes())
    files = card["files"]
    sha256 = files.get("litert", files.get("keras"))["sha256"]
    return ModelCard.model_validate({**card, "sha256": sha256})
