"""Synthetic pictures, each different, that take as long to decode as photos.

`python -m scripts.benchmarks.support.pictures FOLDER` serves them and prints its port.
"""

import io
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from scripts.local.image_server import ImageServer

SIZE = (400, 300)
# Noise from coarse to fine, and the weight of each layer over the ones before.
LAYERS = (((4, 3), 1.0), ((16, 12), 0.4), ((64, 48), 0.25), ((200, 150), 0.12))


def make_picture(index: int) -> bytes:
    """Make a JPEG of 400 x 300 pixels and 20 to 30 kB, always the same for an index."""
    rng = random.Random(index)  # noqa: S311
    picture = Image.new("RGB", SIZE)
    for (width, height), weight in LAYERS:
        noise = Image.frombytes("RGB", (width, height), rng.randbytes(width * height * 3))
        picture = Image.blend(picture, noise.resize(SIZE, Image.Resampling.BICUBIC), weight)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()


def write_pictures(count: int, folder: Path) -> None:
    """Write the pictures 0 to `count` - 1 into `folder` as <index>.jpg."""
    with ThreadPoolExecutor() as pool:
        for index, jpeg in enumerate(pool.map(make_picture, range(count))):
            (folder / f"{index}.jpg").write_bytes(jpeg)


def read_pictures(folder: Path) -> list[bytes]:
    """Read what `write_pictures` wrote, in order."""
    count = len(list(folder.glob("*.jpg")))
    return [(folder / f"{index}.jpg").read_bytes() for index in range(count)]


if __name__ == "__main__":
    payloads = {path.name: path.read_bytes() for path in Path(sys.argv[1]).iterdir()}
    with ImageServer(payloads.get) as server:
        print(server.port, flush=True)
        threading.Event().wait()
