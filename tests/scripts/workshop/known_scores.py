"""Models that score how red and how blue a picture is, and pictures with known scores."""

import csv
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from model.images.decode import PREPROCESSING
from model.training.export import write_artifact

LABELS = ("red", "blue")
SIDE = 16
_STEEP = 10.0


def write_model(folder: Path, thresholds: Sequence[float] = (0.5, 0.5), **card: object) -> Path:
    """A model that scores a channel of brightness b, 0 to 1, as sigmoid(10 b - 5)."""
    pictures = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pictures))
    dense = keras.layers.Dense(2, activation="sigmoid")
    network = keras.Model(pictures, dense(means))
    kernel = np.array([[_STEEP, 0], [0, 0], [0, _STEEP]])
    dense.set_weights([kernel, np.full(2, -_STEEP / 2)])
    fields = {
        "name": folder.parent.name,
        "version": folder.name,
        "labels": LABELS,
        "thresholds": thresholds,
        "activation": "sigmoid",
        "input_size": (SIDE, SIDE),
        "preprocessing": PREPROCESSING,
        "created": "2026-01-31",
    }
    write_artifact(network, folder, fields | card)
    return folder


def score_of(brightness: int) -> float:
    """The score of the model for a channel of 0 to 255."""
    return float(1 / (1 + np.exp(_STEEP / 2 - _STEEP * brightness / 255)))


def write_photos(folder: Path, photos: dict[str, tuple[int, int, int, int]]) -> Path:
    """Pictures by name, each (red, blue, is labelled red, is labelled blue), and their table."""
    (folder / "images").mkdir(parents=True)
    table = folder / "labels.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", *LABELS, "split"])
        for name, (red, blue, is_red, is_blue) in photos.items():
            Image.new("RGB", (40, 20), (red, 90, blue)).save(folder / "images" / name)
            rows.writerow([name, is_red, is_blue, "train" if name.startswith("t") else "val"])
    return table


def loads_nothing(html: str) -> bool:
    """Whether a page has no scripts and no references to other files, but links."""
    tags = _Tags()
    tags.feed(html)
    return (
        not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.found}
        and all(
            value.startswith("data:") if name in ("src", "href") else not name.startswith("on")
            for tag, attributes in tags.found
            for name, value in attributes.items()
            if (tag, name) != ("a", "href")
        )
        and "url(" not in html
        and "@import" not in html
    )


class _Tags(HTMLParser):
    """Collects the tags of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
