"""Writes a trained network as an artifact folder: LiteRT model, Keras model and card."""

import tempfile
from pathlib import Path
from typing import Any

from model.artifact.card import Card, describe_file, load_card, write_card
from model.artifact.footprint import measure

LITERT_NAME = "model.tflite"
KERAS_NAME = "model.keras"


def write_artifact(
    full: Any, folder: Path, card: dict[str, Any], *, with_keras: bool = True, half: bool = True
) -> Card:
    """Writes `full` and its card to `folder`, all or nothing; `card` has what is not found here.

    A folder that is there already is replaced once the new one is complete. The Keras model, for
    GPUs, may be left out; `half` is as in `to_litert`.

    Raises:
        ArtifactInvalid: LiteRT cannot run the model.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        (fresh / LITERT_NAME).write_bytes(to_litert(full, half=half))
        files = {"litert": describe_file(fresh / LITERT_NAME)}
        if with_keras:
            full.save(fresh / KERAS_NAME)
            files["keras"] = describe_file(fresh / KERAS_NAME)
        memory_bytes = measure(fresh / LITERT_NAME)
        write_card(Card(**card, files=files, memory_bytes=memory_bytes), fresh)
        written = load_card(fresh)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)
    return written


def to_litert(full: Any, *, half: bool = True) -> bytes:
    """`full` as a LiteRT model of any batch size, its weights in half or full precision."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as scratch:
        full.export(scratch, format="tf_saved_model", verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
        if half:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())
