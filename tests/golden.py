"""The scores of the sample photos that every engine and the service must return.

After training a new bundled model or changing the preprocessing, update them with

    python -m tests.golden
"""

import json
from pathlib import Path

from model.images.decode import decode
from model.predictor import Predictor, load_predictor

ROOT = Path(__file__).resolve().parents[1]
ARTIFACT = ROOT / "model" / "bundled" / "scenes" / "5"
SAMPLES = ROOT / "scripts" / "samples"
GOLDEN = Path(__file__).with_name("golden_scores.json")
TOLERANCE = 0.005

Scores = dict[str, dict[str, float]]


def sample_photos() -> list[Path]:
    """Every sample photo, ordered by name."""
    return sorted(path for path in SAMPLES.iterdir() if path.suffix in (".jpg", ".webp"))


def golden_scores() -> Scores:
    """Photo name -> label -> score."""
    scores: Scores = json.loads(GOLDEN.read_text())["scores"]
    return scores


def score_photos(predictor: Predictor) -> Scores:
    """Photo name -> label -> score, by `predictor`."""
    photos = sample_photos()
    images = [decode(photo.read_bytes(), predictor.card.input_size).pixels for photo in photos]
    return {
        photo.name: dict(zip(predictor.card.labels, prediction.scores, strict=True))
        for photo, prediction in zip(photos, predictor.predict(images), strict=True)
    }


def write_golden() -> None:
    """Score the sample photos with LiteRT, the engine of most machines, and write the scores."""
    predictor = load_predictor(ARTIFACT, "litert")
    scores = {
        photo: {label: round(score, 4) for label, score in by_label.items()}
        for photo, by_label in score_photos(predictor).items()
    }
    golden = {"model_sha256": predictor.card.sha256, "scores": scores}
    GOLDEN.write_text(json.dumps(golden, indent=2) + "\n")


if __name__ == "__main__":
    write_golden()
