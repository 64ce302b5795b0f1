"""Turns samples of more than 8 bits, and signed ones, into 8 bits by the range of the file.

The range is what the file states: the display range of ImageJ, MinSampleValue and MaxSampleValue,
OME's SignificantBits, BitsPerSample, or a PNG's sBIT. Where it states none, one rule applies: white
is the smallest 2^n - 1, of at least 8 bits, that no sample exceeds; for floats below 2 it is 1.0.
Black is 0, or minus white if samples are more than an eighth of white below 0.
"""

import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImagePalette, TiffImagePlugin
from PIL.ImageFile import ImageFile

from model.images.result import ImageFault, ImageRejected

# Large pictures are flattened and reduced in tiles of about this width and height, in pixels.
_TILE_SIDE = 1024
_BITS, _PHOTOMETRIC, _DESCRIPTION, _PLANAR, _COLOUR_MAP, _SAMPLE_FORMAT, _MISSING = (
    258, 262, 270, 284, 320, 339, 42113,
)  # fmt: skip
# Minimum and maximum: for signed integers and floats, and for unsigned integers.
_RANGES = ((340, 341), (280, 281))
_UNSIGNED, _SIGNED = 1, 2
_DESCRIPTION_CHARS = 100_000
_IMAGEJ = re.compile(r"^(min|max)=(\S+)$", re.MULTILINE)
_SIGNIFICANT_BITS = re.compile(r'\bSignificantBits="(\d{1,2})"')
_SBIT = re.compile(rb"\0\0\0[\1-\4]sBIT([\1-\x10])")
# The key in `info` of the box of the picture that the first frame of a GIF covers.
COVERED = "covered"
# Floats beyond it mark missing samples.
_HUGE = 1e38

# Pillow decodes these kinds of TIFF, but its table lacks some of them.
for _order, _letter in ((TiffImagePlugin.II, ""), (TiffImagePlugin.MM, "B")):
    for _photometric in (0, 1):
        for _format, _bits, _mode, _stored in (
            (_UNSIGNED, 12, "I;16", "I;12"),
            (_UNSIGNED, 16, f"I;16{_letter}", f"I;16{_letter}"),
            (_UNSIGNED, 32, "I", f"I;32{_letter}S"),
            (_SIGNED, 16, "I", f"I;16{_letter}S"),
            (_SIGNED, 32, "I", f"I;32{_letter}S"),
        ):
            TiffImagePlugin.OPEN_INFO.setdefault(
                (_order, _photometric, (_format,), 1, (_bits,), ()), (_mode, _stored)
            )


@dataclass(frozen=True)
class SampleRange:
    """The samples that become black and white; white is below black where zero is white."""

    dtype: np.dtype[Any]
    black: float
    white: float

    def levels(self, samples: NDArray[Any]) -> Image.Image:
        """Samples as an 8-bit grey picture; NaN becomes black."""
        values = samples.view(self.dtype).astype(np.float32)
        values -= self.black
        values *= 255 / (self.white - self.black)
        return Image.fromarray(np.nan_to_num(values).clip(0, 255).round().astype(np.uint8))


def tiles(
    image: Image.Image, across: int = 1, down: int = 1
) -> Iterator[tuple[int, int, Image.Image]]:
    """Left edge, top edge and pixels of tiles whose sides are multiples of `across` and `down`."""
    width, height = (step * max(1, _TILE_SIDE // step) for step in (across, down))
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            box = (left, top, min(left + width, image.width), min(top + height, image.height))
            yield left, top, image.crop(box)


def load(image: ImageFile, open_: Callable[[], ImageFile], payload: bytes) -> ImageFile:
    """Load an opened picture; `open_` opens it again if it must be read in another way.

    Raises:
        ImageRejected: the planes of a TIFF are of a kind that Pillow reads wrongly.
    """
    planar = _number(image, _PLANAR) == 2
    if planar:
        if image.mode in ("LA", "La", "PA"):
            raise ImageRejected(
                ImageFault.UNSUPPORTED_FORMAT, "TIFF with its transparency in a separate plane"
            )
        open_ = _reading_planes(open_)
        image = open_()
    if image.mode in ("P", "PA") and (colours := _colours_of_8_bits(image)):
        image.palette = ImagePalette.raw("RGB;L", colours)
    raw_mode = _raw_mode(image)
    if image.format == "PNG" and ";16" in raw_mode:
        sbit = _SBIT.search(payload, 0, max(payload.find(b"IDAT"), 0))
        image.info["significant_bits"] = sbit[1][0] if sbit else None
    if raw_mode.endswith(("BS", "BF")) and image.tile[0].codec_name == "libtiff":
        # libtiff has already swapped the bytes.
        _set_raw_mode(image, raw_mode[:-2] + "N" + raw_mode[-1])
    if image.format == "GIF" and "transparency" not in image.info:
        image.info[COVERED] = image.tile[0].extents
    image.load()
    if raw_mode.startswith(("RGB;16", "RGBA;16", "RGBX;16", "LA;16")) and _is_too_dark(image):
        if planar:
            raise ImageRejected(
                ImageFault.UNSUPPORTED_FORMAT, "TIFF with 9 to 15-bit colours in separate planes"
            )
        _scale_colours(image, open_, raw_mode)
    return image


def grey_range(image: Image.Image) -> SampleRange | None:
    """The range of a loaded grey picture of more than 8 bits or with a sign; None for others."""
    signed = _number(image, _SAMPLE_FORMAT) == _SIGNED
    if not image.mode.startswith(("I", "F")) and not (image.mode == "L" and signed):
        return None
    dtype = np.asarray(image.crop((0, 0, 1, 1))).dtype
    if image.mode in ("L", "I"):
        dtype = np.dtype(f"{'i' if signed else 'u'}{dtype.itemsize}")
    return _range(image, dtype, (np.asarray(tile).view(dtype) for _, _, tile in tiles(image)))


def _is_too_dark(image: Image.Image) -> bool:
    """Whether 16-bit colours, of which Pillow keeps the high bytes, may have another white."""
    extrema: Any = image.getextrema()
    return max(highest for _, highest in extrema[:3]) < 128 or bool(_stated(image))


def _scale_colours(image: ImageFile, open_: Callable[[], ImageFile], raw_mode: str) -> None:
    """Scale 16-bit colours by their range, from their high and their low bytes."""
    is_grey = raw_mode.startswith("LA")
    # In the other byte order, Pillow keeps the low bytes. Read as RGBA, 16-bit grey with alpha is
    # its four bytes.
    lower = open_()
    order = {"L": "B", "B": "L", "N": "B"}[raw_mode[-1]]
    _set_raw_mode(lower, "RGBA" if is_grey else raw_mode[:-1] + order)
    lower.load()

    def samples() -> Iterator[tuple[int, int, int, NDArray[np.uint16]]]:
        for (left, top, high), (_, _, low) in zip(tiles(image), tiles(lower), strict=True):
            for band in range(3):
                high_bytes = np.asarray(high.getchannel(band)).astype(np.uint16) << 8
                low_bytes = np.asarray(low.getchannel(1 if is_grey else band))
                yield left, top, band, high_bytes | low_bytes

    scale = _range(image, np.dtype(np.uint16), (values for *_, values in samples()))
    levels: list[Image.Image] = []
    for left, top, band, values in samples():
        levels.append(scale.levels(values))
        if band == 2:
            box = (left, top, left + levels[0].width, top + levels[0].height)
            alpha = [image.crop(box).getchannel(3)] if image.mode == "RGBA" else []
            image.paste(Image.merge(image.mode, levels + alpha), box)
            levels = []


def _range(image: Image.Image, dtype: np.dtype[Any], arrays: Iterable[NDArray[Any]]) -> SampleRange:
    missing = _number(image, _MISSING)
    lowest, highest = math.inf, -math.inf
    for samples in arrays:
        valid = samples if missing is None else samples[samples != missing]
        if dtype.kind == "f":
            valid = valid[np.abs(valid) < _HUGE]
        if valid.size:
            lowest, highest = min(lowest, float(valid.min())), max(highest, float(valid.max()))
    if lowest > highest:
        lowest = highest = 0.0
    black, white = _display_range(image) or next(
        (stated for stated in _stated(image) if stated[0] <= lowest and highest <= stated[1]),
        _customary(lowest, highest, dtype, _number(image, _BITS)),
    )
    if image.format == "TIFF" and not _number(image, _PHOTOMETRIC):
        black, white = white, black
    return SampleRange(dtype, black, white)


def _customary(
    lowest: float, highest: float, dtype: np.dtype[Any], bits: float | None
) -> tuple[float, float]:
    """Black and white by the rule for files that state none."""
    if dtype.kind == "f" and lowest > -2 and highest < 2:
        white = 1.0
    else:
        peak = math.ceil(max(highest, -lowest - 1))
        white = 2.0 ** max(peak.bit_length(), 8) - 1
    if dtype.kind == "i" and bits:
        white = min(white, 2.0 ** (bits - 1) - 1)
    return -white if lowest < -white / 8 else 0.0, white


def _display_range(image: Image.Image) -> tuple[float, float] | None:
    """The range in which ImageJ shows a picture; it cuts off samples beyond it."""
    description = _description(image)
    if not description.startswith("ImageJ="):
        return None
    ends = dict(_IMAGEJ.findall(description))
    try:
        black, white = float(ends["min"]), float(ends["max"])
    except (KeyError, ValueError):
        return None
    return (black, white) if -_HUGE < black < white < _HUGE else None


def _stated(image: Image.Image) -> list[tuple[float, float]]:
    """Black and white as the file states them; only a range that holds all samples can be right."""
    if image.format == "JPEG2000":
        return [(0, 65535)]  # Pillow has scaled the samples.
    ranges = []
    for low_tag, high_tag in _RANGES:
        black, white = _number(image, low_tag) or 0.0, _number(image, high_tag)
        if white is not None and black < white:
            ranges.append((black, white))
    if significant := _SIGNIFICANT_BITS.search(_description(image)):
        ranges.append((0, 2.0 ** int(significant[1]) - 1))
    if _number(image, _BITS) == 12:
        ranges.append((0, 4095))
    if bits := image.info.get("significant_bits"):
        # Samples of a PNG should be scaled to 16 bits nevertheless.
        ranges += [(0, 2.0**bits - 1), (0, 65535)]
    return ranges


def _colours_of_8_bits(image: Image.Image) -> bytes | None:
    """The colours of a TIFF whose palette has 8 bits, as old programs write it, instead of 16."""
    try:
        return bytes(getattr(image, "tag_v2", {})[_COLOUR_MAP])
    except (KeyError, TypeError, ValueError):  # such as a value beyond 255
        return None


def _description(image: Image.Image) -> str:
    return str(_tag(image, _DESCRIPTION) or "")[:_DESCRIPTION_CHARS]


def _number(image: Image.Image, tag: int) -> float | None:
    """The first value of a TIFF tag as a number, if it has one."""
    try:
        number = float(_tag(image, tag))
    except (ArithmeticError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _tag(image: Image.Image, tag: int) -> Any:
    """The first value of a TIFF tag; None if there is none or it is damaged."""
    try:
        value = getattr(image, "tag_v2", {}).get(tag)
        return value[0] if isinstance(value, tuple) else value
    except (ArithmeticError, LookupError, TypeError, ValueError, struct.error):
        return None


def _reading_planes(open_: Callable[[], ImageFile]) -> Callable[[], ImageFile]:
    """`open_` with libtiff, because Pillow's own decoder reads every plane as one of 8 bits."""

    def open_planes() -> ImageFile:
        TiffImagePlugin.READ_LIBTIFF = True
        try:
            return open_()
        finally:
            TiffImagePlugin.READ_LIBTIFF = False

    return open_planes


def _raw_mode(image: ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _set_raw_mode(image: ImageFile, raw_mode: str) -> None:
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in image.tile
    ]
