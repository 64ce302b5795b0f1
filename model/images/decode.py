"""Bytes to RGB pixels: the one decode and the one resize, for training and serving alike."""

import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

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

from model.images.errors import ImageFault, ImageRejected
from model.images.headers import check_exif, read_ask, too_many_pixels
from model.images.memory_budget import MemoryBudget
from model.images.sandbox import Sandbox
from model.images.signatures import is_cut, kind_of

__all__ = [
    "FORMATS",
    "MEMORY",
    "PREPROCESSING",
    "DecodedImage",
    "ImageFault",
    "ImageRejected",
    "decode",
    "decode_here",
]

# Names what decode() does to pixels. A model is only right for the recipe it was trained with,
# so its card carries this name; give it a new number whenever the pixels would change.
PREPROCESSING = "rgb-squash-bilinear-1"

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# decode() bounds the pixels itself, by its own argument. Pillow's bound is a second one that
# warns instead of refusing, and is one number for the whole process.
Image.MAX_IMAGE_PIXELS = None
# What Pillow finds odd in a file but reads all the same is nobody's concern.
warnings.filterwarnings("ignore", module="PIL")

# Decoded by a process apart; the others, which header and code can be trusted to be bounded,
# by the thread that asks.
_APART = frozenset({"TIFF", "AVIF"})
_apart = Sandbox()
# All threads of a process share it, unless they are given another.
MEMORY = MemoryBudget(512_000_000)
# A large picture is made opaque and shrunk in pieces of about this width and height.
_PIECE_SIDE = 1024


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
    payload: bytes,
    size: tuple[int, int] = (224, 224),
    max_pixels: int = 50_000_000,
    memory: MemoryBudget = MEMORY,
) -> DecodedImage:
    """Decode a picture and squash it to `size`, (height, width) in pixels.

    Several threads may call this at once; each waits until `memory` has what its picture takes.
    An animated picture is its first frame, transparency becomes white, and colour profiles are
    not applied.

    Raises:
        ImageRejected: the payload is not a picture, is one of a kind that is not decoded, is
            damaged, or has more than `max_pixels` or takes more than `memory` has, both of which
            is known before any pixel is decoded.
    """
    kind = _plugin(payload)
    ask = read_ask(kind, payload, max(size), max_pixels)
    if ask.memory_bytes > memory.total_bytes:
        raise ImageRejected(
            ImageFault.TOO_MANY_PIXELS,
            f"{ask.width} x {ask.height} pixels take {ask.memory_bytes // 10**6} MB to decode as "
            f"{kind}, {memory.total_bytes // 10**6} MB are allowed",
        )
    if kind in _APART:
        with _apart.lock, memory.taking(ask.memory_bytes):
            reply = _apart.decode(payload, size, max_pixels, ask.memory_bytes)
        pixels = np.frombuffer(reply.pixels, np.uint8).reshape(*size, 3)
        return DecodedImage(pixels, reply.format, reply.width, reply.height)
    with memory.taking(ask.memory_bytes):
        return decode_here(payload, size, min(max_pixels, ask.width * ask.height))


def decode_here(payload: bytes, size: tuple[int, int], max_pixels: int) -> DecodedImage:
    """Decode as `decode` does, in this thread and whatever memory it takes.

    Raises:
        ImageRejected: see there.
        MemoryError: there is none left.
    """
    try:
        return _decode(payload, size, max_pixels)
    except (ImageRejected, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _unidentified(payload) from None
    except Exception as error:  # a hostile payload makes codecs raise nearly anything
        cut = is_cut(payload) or "truncated" in str(error).lower()
        fault = ImageFault.TRUNCATED if cut else ImageFault.DECODE_FAILED
        raise ImageRejected(fault, str(error) or type(error).__name__) from error


def _plugin(payload: bytes) -> str:
    """The first of FORMATS whose decoder would take the payload by its first bytes.

    Raises:
        ImageRejected: there is none.
    """
    for kind in FORMATS:
        accepts = Image.OPEN[kind][1]
        if accepts is not None and accepts(payload[:16]):
            return kind
    raise _unidentified(payload)


def _decode(payload: bytes, size: tuple[int, int], max_pixels: int) -> DecodedImage:
    with Image.open(io.BytesIO(payload), formats=[_plugin(payload)]) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise too_many_pixels(width, height, max_pixels)
        check_exif(len(image.info.get("exif", b"")))
        # A phone's JPEG with a preview behind it opens as MPO.
        kind = "jpeg" if image.format == "MPO" else str(image.format).lower()
        if kind == "jpeg":
            # Decodes to 1/2, 1/4 or 1/8, never to less than `size` in either direction.
            image.draft(None, (max(size), max(size)))
        image.load()
        turn = _turn(image)
        small = _shrunk(image, size if turn in _QUARTER_TURNS else size[::-1])
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


def _shrunk(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture as 8-bit L or RGB on white, squashed to `size`, (width, height) in pixels.

    Works in pieces, so that nothing of the picture's own size is held twice. As Pillow does with
    a reducing_gap of 2, means of whole pixels come first and what is left is resampled.
    """
    across, down = (
        int(side / target / 2) or 1 for side, target in zip(image.size, size, strict=True)
    )
    white = _white(image) if image.mode in ("I", "F") else 255
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    reduced = None
    for left, top, piece in _pieces(image, across, down):
        opaque = _opaque(piece, white).reduce((across, down))
        if reduced is None:
            whole = (-(-image.width // across), -(-image.height // down))
            reduced = Image.new(opaque.mode, whole)
        reduced.paste(opaque, (left // across, top // down))
    assert reduced
    box = (0, 0, image.width / across, image.height / down)
    return reduced.resize(size, Image.Resampling.BILINEAR, box)


def _pieces(
    image: Image.Image, across: int = 1, down: int = 1
) -> Iterator[tuple[int, int, Image.Image]]:
    """Left edge, top edge and pixels of pieces whose sides are multiples of `across` and `down`."""
    wide, high = (step * max(1, _PIECE_SIDE // step) for step in (across, down))
    for top in range(0, image.height, high):
        for left in range(0, image.width, wide):
            box = (left, top, min(left + wide, image.width), min(top + high, image.height))
            yield left, top, image.crop(box)


def _opaque(image: Image.Image, white: float) -> Image.Image:
    """The picture as 8-bit L or RGB, on white where it is transparent.

    `white` is the value of white in a picture of 32-bit integers or floats.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        values = _values(image).clip(0, white) * (255 / white)
        return Image.fromarray(values.round().astype(np.uint8))
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = Image.new("RGB", rgba.size, "white")
        opaque.paste(rgba, mask=rgba)
        return opaque
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _white(image: Image.Image) -> float:
    """The value of white in a picture of 32-bit integers or floats.

    Nothing in the file says which it is: the smallest customary one that no pixel exceeds.
    """
    peak = max(float(_values(piece).max()) for _, _, piece in _pieces(image))
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0, 2.0**31)
    return next((white for white in whites if peak <= white), peak)


def _values(image: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image, dtype=np.float32))


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
