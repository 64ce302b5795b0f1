"""Pictures for the benchmarks, made by code: no two alike, and as heavy as photos to decode."""

import io
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

SIZE = (400, 300)
# Noise from coarse to fine, and how much of each is laid over what is there already.
LAYERS = (((4, 3), 1.0), ((16, 12), 0.4), ((64, 48), 0.25), ((200, 150), 0.12))


def make_picture(index: int) -> bytes:
    """Make a JPEG of 400 x 300 pixels and 20 to 30 kB, the same one for the same index."""
    chance = random.Random(index)  # noqa: S311
    picture = Image.new("RGB", SIZE)
    for (width, height), weight in LAYERS:
        noise = Image.frombytes("RGB", (width, height), chance.randbytes(width * height * 3))
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
