"""The tutorial approach as a baseline: FastAPI, Keras `predict`, one picture per request."""

import io
import socket
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image

from model.artifact.card import load_card
from model.artifact.head import Head
from worker.jobs.settings import ARTIFACTS_PATH


def create_app(artifact: Path) -> FastAPI:
    """Load and warm up the Keras model of `artifact` once."""
    card = load_card(artifact)
    network = keras.models.load_model(artifact / card.files["keras"].path, compile=False)
    head = Head.load(artifact / card.files["head"].path, len(card.labels))
    height, width = card.input_size

    network.predict(np.zeros((1, height, width, 3), np.uint8), verbose=0)
    app = FastAPI()

    @app.post("/scorefile/")
    def score_file(file: Annotated[UploadFile, File()]) -> dict[str, float]:
        picture = Image.open(io.BytesIO(file.file.read())).convert("RGB").resize((width, height))
        features = network.predict(np.asarray(picture)[np.newaxis], verbose=0)
        scores = head.scores(features, card.activation)[0]
        return dict(zip(card.labels, scores.tolist(), strict=True))

    return app


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(ARTIFACTS_PATH / "scenes" / "5")
    print(listener.getsockname()[1], flush=True)  # connections wait until the server runs
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
