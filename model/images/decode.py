"""Decodes and resizes pictures to RGB pixels, in the same way for training and for serving."""

import io
import struct
import warnings
import zlib
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.AvifImagePlugin import AvifImageFile
from PIL.ImageFile import ImageFile

from model.images.colours import from_primaries, to_srgb, wide_primaries
from model.images.headers import check_exif, read_requirements, too_many_pixels
from model.images.memory_budget import MemoryBudget
from model.images.repair import has_all_scans, jpeg_kind, tiff_kind, without_damaged_chunks
from model.images.result import DecodedImage, ImageFault, ImageRejected
from model.images.samples import COVERED, grey_range, load, tiles
from model.images.sandbox import Sandbox
from model.images.signatures import AVIF_BRANDS, describe_other, detect_format, is_truncated

# Names the transformation of pixels that decode() does. A model is only correct with the
# preprocessing it was trained with, so its card has this name. Change the number whenever the
# pixels of ordinary pictures, of 8 bits in sRGB, would change. Reading others as what they show
# makes them more like those that a model was trained with, and changes no number.
PREPROCESSING = "rgb-squash-bilinear-1"

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000")
_HEIF_PACKAGE = "pillow_heif"

# Pillow's plugins register themselves on import. If one were missing, Pillow would search for it
# while decoding, which is not safe in several threads.
for _name in ("Avif", "Bmp", "Gif", "Jpeg", "Jpeg2K", "Mpo", "Png", "Tiff", "WebP"):
    import_module(f"PIL.{_name}ImagePlugin")
# Pillow's own check knows fewer brands than its decoder reads.
Image.register_open(
    "AVIF", AvifImageFile, lambda head: head[4:8] == b"ftyp" and head[8:12] in AVIF_BRANDS
)
# decode() has a pixel limit of its own. Pillow's limit is the same for the whole process, and
# below twice its value it only warns.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of irregularities in files that it can read nevertheless.
warnings.filterwarnings("ignore", module="PIL")

_sandbox = Sandbox()
# Shared by all threads of a process, unless they pass another budget.
DEFAULT_MEMORY_BUDGET = MemoryBudget(512_000_000)
_JPEG_END = b"\xff\xd9"
# Each begins with other bits than the zeros that the decoder uses instead of missing ones.
_OTHER_BITS = [bytes(bits) * 99 for bits in ((0x5A, 0xA5, 0x36), (0xB4, 0x5A, 0x6C), (0xE1, 0x96))]


def decode(
    payload: bytes,
    size: tuple[int, int] = (224, 224),
    max_pixels: int = 50_000_000,
    memory: MemoryBudget = DEFAULT_MEMORY_BUDGET,
) -> DecodedImage:
    """Decode a picture and resize it to `size`, (height, width) in pixels, without cropping.

    Thread-safe; each thread waits until `memory` has as much as its picture needs. Of an animated
    picture the first frame is used, transparency becomes white, and colours become sRGB.

    Raises:
        ImageRejected: the payload is not an image, has an unsupported format, is damaged, or has
            more than `max_pixels` or needs more than all of `memory`. The last two are detected
            before any pixel is decoded.
    """
    format_ = _decoder_of(payload)
    required = read_requirements(format_, payload, max(size), max_pixels)
    if required.memory_bytes > memory.total_bytes:
        raise ImageRejected(
            ImageFault.TOO_MANY_PIXELS,
            f"decoding {required.width} x {required.height} pixels of {format_} needs "
            f"{required.memory_bytes // 10**6} MB, {memory.total_bytes // 10**6} MB are allowed",
        )
    with memory.reserve(required.memory_bytes):
        return _sandbox.decode(payload, size, max_pixels, required.memory_bytes)


def decode_here(payload: bytes, size: tuple[int, int], max_pixels: int) -> DecodedImage:
    """Decode as `decode` does, but in this process, which should be a sandbox, without limits.

    Raises:
        ImageRejected: as in `decode`.
        MemoryError: the process has no memory left.
    """
    try:
        return _decode(payload, size, max_pixels)
    except (ImageRejected, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _unidentified(payload) from None
    except Exception as error:  # a hostile payload makes codecs raise nearly anything
        if kind := jpeg_kind(payload):
            raise ImageRejected(ImageFault.UNSUPPORTED_FORMAT, f"{kind} is not supported") from None
        reason = str(error).lower()
        truncated = is_truncated(payload) or "truncated" in reason or "end of file" in reason
        fault = ImageFault.TRUNCATED if truncated else ImageFault.DECODE_FAILED
        raise ImageRejected(fault, str(error) or type(error).__name__) from error


def reads_heic() -> bool:
    """Whether this process can decode HEIC, which needs a package that not every worker has."""
    return find_spec(_HEIF_PACKAGE) is not None


def _decoder_of(payload: bytes) -> str:
    """The first of FORMATS whose decoder accepts the first bytes of the payload.

    Raises:
        ImageRejected: none does.
    """
    if detect_format(payload) == "HEIF":
        if not reads_heic():
            raise ImageRejected(
                ImageFault.UNSUPPORTED_FORMAT,
                "this worker cannot decode HEIC: install the package pillow-heif there",
            )
        return "HEIF"
    for name in FORMATS:
        accepts = Image.OPEN[name][1] if name in Image.OPEN else None
        if accepts is not None and accepts(payload[:16]):
            return name
    raise _unidentified(payload)


def _decode(payload: bytes, size: tuple[int, int], max_pixels: int) -> DecodedImage:
    image, (width, height) = _load(payload, size, max_pixels)
    with image:
        # Pillow calls a JPEG with an embedded preview, as phones write it, MPO.
        format_ = "jpeg" if image.format == "MPO" else str(image.format).lower()
        transposition = _orientation(image)
        sideways = transposition in _QUARTER_TURNS
        resized = _resize(image, size if sideways else size[::-1])
        profile = image.info.get("icc_profile")
        primaries = None if profile else wide_primaries(payload, image.format)
        if primaries:
            resized = from_primaries(resized, primaries)
        else:
            gamma = None if "srgb" in image.info else image.info.get("gamma")
            resized = to_srgb(resized, profile, gamma)
    if transposition is not None:
        resized = resized.transpose(transposition)
    if sideways:
        width, height = height, width
    return DecodedImage(np.asarray(resized), format_, width, height)


def _load(
    payload: bytes, size: tuple[int, int], max_pixels: int
) -> tuple[Image.Image, tuple[int, int]]:
    """The loaded picture and its original width and height, even if a JPEG has no end marker."""
    try:
        return _load_whole(payload, size, max_pixels)
    except OSError as error:
        if "truncated" not in str(error) or not has_all_scans(payload):
            raise
    # What follows the last pixel changes no pixel, but other bits in place of missing ones do.
    body = payload.rstrip(b"\xff")
    image, original_size = _load_whole(body + _JPEG_END, size, max_pixels)
    checksum = _checksum(image)
    del image
    for bits in _OTHER_BITS:
        other, _ = _load_whole(body + bits + _JPEG_END, size, max_pixels)
        if _checksum(other) != checksum:
            raise OSError("image file is truncated")
    return other, original_size


def _load_whole(
    payload: bytes, size: tuple[int, int], max_pixels: int
) -> tuple[Image.Image, tuple[int, int]]:
    format_ = _decoder_of(payload)

    if format_ == "HEIF":
        # Only here, in the sandbox, because it takes memory.
        import_module(_HEIF_PACKAGE).register_heif_opener(decode_threads=1)

    if format_ == "JPEG2000" and is_truncated(payload):
        # Its decoder would return what there is.
        raise OSError("image file is truncated")

    def open_() -> ImageFile:
        try:
            return Image.open(io.BytesIO(payload), formats=[format_])
        except UnidentifiedImageError:
            if format_ != "PNG":
                raise
        return Image.open(io.BytesIO(without_damaged_chunks(payload)), formats=[format_])

    image = open_()
    width, height = image.size
    if width * height > max_pixels:
        raise too_many_pixels(width, height, max_pixels)
    check_exif(len(image.info.get("exif") or b""))
    if format_ == "JPEG":
        # Decodes to 1/2, 1/4 or 1/8, but never to less than `size` in either direction.
        image.draft(None, (max(size), max(size)))
    return load(image, open_, payload), (width, height)


def _checksum(image: Image.Image) -> int:
    checksum = 0
    for _, _, tile in tiles(image):
        checksum = zlib.crc32(tile.tobytes(), checksum)
    return checksum


_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = {_TRANSPOSITIONS[orientation] for orientation in (5, 6, 7, 8)}


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """The operation that turns a loaded picture upright; None if there is none or EXIF is damaged.

    Pillow has already turned a TIFF. Its exif_transpose is not used because it writes all of the
    EXIF again, and fails if a single tag is damaged.
    """
    try:
        return _TRANSPOSITIONS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except (SyntaxError, ValueError, TypeError, struct.error):
        return None


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture as 8-bit L, RGB or CMYK on white, resized to `size`, (width, height) in pixels.

    Works in tiles, so that there is never a second copy of the full-size picture. As in Pillow
    with a reducing_gap of 2, blocks of whole pixels are averaged first and the result is resampled.
    """
    across, down = (
        max(1, side // (2 * target)) for side, target in zip(image.size, size, strict=True)
    )
    range_ = grey_range(image)
    whole = (0, 0, *image.size)
    covered = image.info.get(COVERED, whole)
    is_plain = image.mode in ("L", "RGB", "CMYK") and not image.has_transparency_data
    if is_plain and range_ is None and covered == whole:
        return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    reduced = None
    for left, top, tile in tiles(image, across, down):
        flat = _flatten(tile) if range_ is None else range_.levels(np.asarray(tile))
        if covered != whole:
            flat = _white_around(flat, covered, left, top)
        flat = flat.reduce((across, down))
        if reduced is None:
            reduced_size = (-(-image.width // across), -(-image.height // down))
            reduced = Image.new(flat.mode, reduced_size)
        reduced.paste(flat, (left // across, top // down))
    assert reduced
    box = (0, 0, image.width / across, image.height / down)
    return reduced.resize(size, Image.Resampling.BILINEAR, box)


def _flatten(image: Image.Image) -> Image.Image:
    """A picture of 8 bits as L or RGB, on white where it is transparent."""
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = Image.new("RGB", rgba.size, "white")
        opaque.paste(rgba, mask=rgba)
        return opaque
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _white_around(
    tile: Image.Image, covered: tuple[int, int, int, int], left: int, top: int
) -> Image.Image:
    """A tile, white where it is outside the box of the picture that a frame covers."""
    x0, y0, x1, y1 = covered
    box = (
        max(x0 - left, 0),
        max(y0 - top, 0),
        min(x1 - left, tile.width),
        min(y1 - top, tile.height),
    )
    white = Image.new(tile.mode, tile.size, "white")
    if box[0] < box[2] and box[1] < box[3]:
        white.paste(tile.crop(box), box)
    return white


def _unidentified(payload: bytes) -> ImageRejected:
    """Why no decoder accepted the payload, according to its first bytes."""
    name = detect_format(payload)
    if name is None:
        return ImageRejected(ImageFault.NOT_AN_IMAGE, describe_other(payload))
    if name not in FORMATS:
        return ImageRejected(ImageFault.UNSUPPORTED_FORMAT, f"{name} is not supported")
    if is_truncated(payload):
        return ImageRejected(ImageFault.TRUNCATED, f"the {name} file ends within its header")
    if kind := tiff_kind(payload) if name == "TIFF" else jpeg_kind(payload):
        return ImageRejected(ImageFault.UNSUPPORTED_FORMAT, f"{kind} is not supported")
    return ImageRejected(ImageFault.DECODE_FAILED, f"the header of the {name} file is damaged")
