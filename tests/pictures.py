"""Pictures for tests, made by code, each different from the next."""

import io

import numpy as np
from PIL import Image


def jpeg(seed: int, width: int = 320, height: int = 240) -> bytes:
    """Draw a landscape of coloured bands, noise and a disc; no two seeds look alike."""
    random = np.random.default_rng(seed)
    bands = random.integers(0, 256, (6, 1, 3)).astype(np.float32)
    pixels = np.asarray(
        Image.fromarray(bands.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC),
        np.float32,
    )
    rows, columns = np.ogrid[:height, :width]
    row, column, radius = random.integers(20, 200, 3)
    disc = (rows - row) ** 2 + (columns - column) ** 2 < radius**2 / 4
    pixels = np.where(disc[..., None], random.integers(0, 256, 3), pixels)
    noisy = pixels + random.normal(0, 8, pixels.shape)
    target = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=85)
    return target.getvalue()
