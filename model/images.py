"""Bytes to RGB pixels: the one decode and the one resize, for training and serving alike."""

import io
import struct
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

# Each plugin registers itself on import, so that Pillow never searches for one while decoding,
# which it does not do safely from several threads.
from PIL import (
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from model.signatures import is_cut, kind_of

# Names what decode() does to pixels. A model is only right for the recipe it was trained with,
# so its card carries this name; give it a new number whenever the pixels would change.
PREPROCESSING = "rgb-squash-bilinear-1"

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# decode() bounds the pixels itself, by its own argument. Pillow's bound is a second one that
# warns instead of refusing, and is one number for the whole process.
Image.MAX_IMAGE_PIXELS = None


class ImageFault(StrEnum):
    """Why a payload cannot be scored."""

    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_MANY_PIXELS = "too_many_pixels"
    TRUNCATED = "truncated"
    DECODE_FAILED = "decode_failed"


class ImageRejected(Exception):
    """A payload that cannot be scored: a code for programs, a detail for people."""

    def __init__(self, code: ImageFault, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class DecodedImage:
    """A picture ready to be scored.

    `pixels` is uint8 RGB of shape (height, width, 3) in the size asked for, read-only. `format`
    is lower case. `width` and `height` are the picture's own, in pixels, as a person sees it:
    after EXIF orientation.
    """

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int


def decode(
    payload: bytes, size: tuple[int, int] = (224, 224), max_pixels: int = 50_000_000
) -> DecodedImage:
    """Decode a picture and squash it to `size`, (height, width) in pixels.

    Several threads may call this at once. An animated picture is its first frame, transparency
    becomes white, and colour profiles are not applied.

    Raises:
        ImageRejected: the payload is not a picture, is one of a kind that is not decoded, is
            damaged, or has more than `max_pixels`, which is known before any pixel is decoded.
    """
    try:
        return _decode(payload, size, max_pixels)
    except ImageRejected:
        raise
    except UnidentifiedImageError:
        raise _unidentified(payload) from None
    except Exception as error:  # a hostile payload makes codecs raise nearly anything
        cut = is_cut(payload) or "truncated" in str(error).lower()
        fault = ImageFault.TRUNCATED if cut else ImageFault.DECODE_FAILED
        raise ImageRejected(fault, str(error) or type(error).__name__) from error


def _decode(payload: bytes, size: tuple[int, int], max_pixels: int) -> DecodedImage:
    with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageRejected(
                ImageFault.TOO_MANY_PIXELS, f"{width} x {height} pixels, {max_pixels} are allowed"
            )
        # A phone's JPEG with a preview behind it opens as MPO.
        kind = "jpeg" if image.format == "MPO" else str(image.format).lower()
        if kind == "jpeg":
            # Decodes to 1/2, 1/4 or 1/8, never to less than `size` in either direction.
            image.draft(None, (max(size), max(size)))
        image.load()
        turn = _turn(image)
        target = size if turn in _QUARTER_TURNS else size[::-1]
        small = _opaque(image).resize(target, Image.Resampling.BILINEAR, reducing_gap=2.0)
    if turn is not None:
        small = small.transpose(turn)
    if turn in _QUARTER_TURNS:
        width, height = height, width
    return DecodedImage(np.asarray(small.convert("RGB")), kind, width, height)


_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What brings a loaded picture upright; TIFF is upright already. Damaged EXIF says nothing.

    Pillow's own exif_transpose writes all of the EXIF again, and fails where one tag is damaged.
    """
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except (SyntaxError, ValueError, TypeError, struct.error):
        return None


def _opaque(image: Image.Image) -> Image.Image:
    """The picture as 8-bit L or RGB, on white where it is transparent."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        return _scaled(image)
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = Image.new("RGB", rgba.size, "white")
        opaque.paste(rgba, mask=rgba)
        return opaque
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """32-bit integers or floats as L. Nothing in the file says which value is white: it is the
    smallest customary one that no pixel exceeds.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    peak = float(values.max())
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0, 2.0**31)
    white = next((white for white in whites if peak <= white), peak)
    return Image.fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8))


def _unidentified(payload: bytes) -> ImageRejected:
    """Why no decoder took the payload, as its first bytes tell."""
    kind = kind_of(payload)
    if kind is None:
        return ImageRejected(ImageFault.NOT_AN_IMAGE, "begins like no picture known")
    if kind not in FORMATS:
        return ImageRejected(ImageFault.UNSUPPORTED_FORMAT, f"{kind} pictures are not decoded")
    if is_cut(payload):
        return ImageRejected(ImageFault.TRUNCATED, f"the {kind} ends within its header")
    return ImageRejected(ImageFault.DECODE_FAILED, f"the header of the {kind} is damaged")
