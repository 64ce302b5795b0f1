"""LitServe with two workers and the bundled model, one picture a request."""

import os
import signal
import threading
import time
from typing import Any

import litserve
import urllib3
from fastapi import Request

from model.images.decode import decode
from model.predictor import load_predictor
from scripts.local.stack import listenable_port
from worker.jobs.settings import ARTIFACTS_PATH

WORKERS = 2


class Scenes(litserve.LitAPI):
    """Decodes and scores one picture, posted as the field `file` of a form."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the model in each worker."""
        self.predictor = load_predictor(ARTIFACTS_PATH / "scenes" / "5", "litert", 1, 1)
        self.predictor.warm_up()

    def decode_request(self, request: Request) -> Any:
        """Decode the picture to what the model takes."""
        payload = request["file"].file.read()
        return decode(payload, self.predictor.card.input_size).pixels

    def predict(self, x: Any) -> Any:
        """Score the picture."""
        return self.predictor.predict([x])[0].scores

    def encode_response(self, output: Any) -> dict[str, float]:
        """Name the scores."""
        labels = self.predictor.card.labels
        return dict(zip(labels, map(float, output), strict=True))


def _tell_when_ready(port: int) -> None:
    with urllib3.PoolManager(retries=False) as pool:
        while True:
            try:
                if pool.request("GET", f"http://127.0.0.1:{port}/health").status == 200:
                    break
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.2)
    print(port, flush=True)


def _end_all(*_: object) -> None:
    """End this process, which leads a group, and those that LitServe started."""
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end_all)
    free_port = listenable_port("127.0.0.1", 0)
    threading.Thread(target=_tell_when_ready, args=[free_port], daemon=True).start()
    server = litserve.LitServer(
        Scenes(api_path="/scorefile/"), accelerator="cpu", workers_per_device=WORKERS, timeout=60
    )
    server.run("127.0.0.1", free_port, log_level="warning", generate_client_file=False)
