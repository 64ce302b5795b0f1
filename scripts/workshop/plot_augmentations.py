"""Draws what augmentation does to pictures: `python -m scripts.workshop.plot_augmentations --help`.

Each row has the original picture, the picture after each single step, and examples for training,
which apply each step at random.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.images.decode import decode
from model.images.result import ImageRejected
from model.training.data.augmentation import AUGMENTERS, EXTRAS, RESAMPLERS, apply, augment

_GAP, _TITLE = 4, 18
Pixels = NDArray[np.uint8]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the grid and return the exit code, 2 if a picture cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.workshop.plot_augmentations",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    about = "pictures; each gets one row of the grid"
    parser.add_argument("pictures", nargs="+", type=Path, help=about)
    parser.add_argument("-o", "--output", type=Path, default=Path("augmentations.png"))
    parser.add_argument("--side", type=int, default=128, help="width of a cell in pixels")
    parser.add_argument("--copies", type=int, default=4, help="augmented copies per picture")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    size = (options.side, options.side)
    try:
        images = np.stack([decode(path.read_bytes(), size).pixels for path in options.pictures])
    except (OSError, ImageRejected) as error:
        print(f"a picture cannot be read ({error}): leave it out", file=sys.stderr)
        return 2
    draw_grid(columns(images, options.copies, options.seed)).save(options.output)
    print(options.output)
    return 0


def columns(images: Pixels, copies: int, seed: int) -> dict[str, Pixels]:
    """The pictures of each column by its title, for `images` (n, side, side, 3)."""
    grid = {"original": images}
    for name, make in {**AUGMENTERS, **RESAMPLERS, **EXTRAS}.items():
        grid[name] = apply(make(), images, seed)
    for number in range(copies):
        grid[f"example {number + 1}"] = augment(images, seed * 1000 + number)
    return grid


def draw_grid(titled: dict[str, Pixels]) -> Image.Image:
    """A column with a title for each entry, and a row for each picture."""
    row_count, side, _, _ = next(iter(titled.values())).shape
    step = side + _GAP
    grid = Image.new("RGB", (len(titled) * step + _GAP, row_count * step + _GAP + _TITLE), "white")
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(size=12)
    for column, (title, images) in enumerate(titled.items()):
        left = _GAP + column * step
        pen.text((left, 2), title, fill="black", font=font)
        for row, image in enumerate(images):
            grid.paste(Image.fromarray(image), (left, _TITLE + _GAP + row * step))
    return grid


if __name__ == "__main__":
    sys.exit(main())
