"""Writes a trained network as an artifact folder: LiteRT model, Keras model and card."""

import tempfile
from pathlib import Path
from typing import Any

from model.card import Card, describe_file, load_card, write_card

LITERT_NAME = "model.tflite"
KERAS_NAME = "model.keras"


def write_artifact(full: Any, folder: Path, card: dict[str, Any]) -> Card:
    """Writes `full` and its card (the fields in `card` and `files`) to `folder`, all or nothing.

    A folder that is there already is replaced once the new one is complete.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        (fresh / LITERT_NAME).write_bytes(to_litert(full))
        full.save(fresh / KERAS_NAME)
        files = {
            "litert": describe_file(fresh / LITERT_NAME),
            "keras": describe_file(fresh / KERAS_NAME),
        }
        write_card(Card(**card, files=files), fresh)
        written = load_card(fresh)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)
    return written


def to_litert(full: Any) -> bytes:
    """`full` as a LiteRT model of half-precision weights and any batch size."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as scratch:
        full.export(scratch, format="tf_saved_model", verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())
