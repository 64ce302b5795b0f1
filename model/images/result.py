"""The result of decoding a payload: an image, or the reason for which it is rejected."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DecodedImage:
    """A picture ready to be scored.

    `pixels` is uint8 RGB of shape (height, width, 3) in the requested size, read-only. `format` is
    lower case. `width` and `height` are those of the original picture in pixels, after EXIF
    orientation was applied.
    """

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int


class ImageFault(StrEnum):
    """A reason for which a payload cannot be scored."""

    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_MANY_PIXELS = "too_many_pixels"
    TRUNCATED = "truncated"
    DECODE_FAILED = "decode_failed"


class ImageRejected(Exception):
    """A payload cannot be scored; `code` is for programs, `detail` for people."""

    def __init__(self, code: ImageFault, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
