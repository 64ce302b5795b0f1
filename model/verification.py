"""Verifies that an artifact does what its card says."""

from pathlib import Path

import numpy as np

from model.artifact.card import ArtifactInvalid, Card, load_card
from model.predictor import load_predictor


def verify_artifact(folder: Path) -> Card:
    """Load the artifact in `folder` and score a picture of noise.

    Raises:
        ArtifactInvalid: it cannot be loaded, the number of scores is not the number of labels,
            scores are not in 0..1, or those of a softmax do not add up to 1.
    """
    card = load_card(folder)
    noise = np.random.default_rng(1).integers(0, 256, (*card.input_size, 3), np.uint8)
    try:
        (prediction,) = load_predictor(folder).predict([noise])
    except (ValueError, RuntimeError) as error:
        raise ArtifactInvalid(f"{folder} cannot be run: {error}") from error
    scores = np.array(prediction.scores)
    if len(scores) != len(card.labels):
        raise ArtifactInvalid(f"{folder} gives {len(scores)} scores for {len(card.labels)} labels")
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        raise ArtifactInvalid(f"{folder} gives scores of {scores.min()} to {scores.max()}")
    if card.activation == "softmax" and not card.calibration and abs(scores.sum() - 1) > 0.01:
        raise ArtifactInvalid(
            f"{folder} gives softmax scores that add up to {scores.sum():.3f}, not to 1"
        )
    return card
