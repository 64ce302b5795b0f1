"""Decoding of the many variants of picture files, made with Pillow or by hand."""

import io
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from api.intake.admission import SNIFF_BYTES, looks_like_image
from model.images.decode import decode, reads_heic
from model.images.result import DecodedImage, ImageFault, ImageRejected
from model.images.signatures import AVIF_BRANDS, detect_format
from tests.hostile import KINDS
from tests.model.images.tiff_file import tiff

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 200, 40), (40, 50, 210), (230, 220, 40)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
# Top left, top right, bottom left, bottom right: no turn or mirroring leaves this as it is.
UPRIGHT = (RED, GREEN, BLUE, YELLOW)
Colour = tuple[int, int, int]
Corners = tuple[Colour, Colour, Colour, Colour]


# Importing it has registered the encoder of HEIC too.
assert "HEIF" in KINDS


def picture(corners: Corners = UPRIGHT, width: int = 96, height: int = 64) -> Image.Image:
    """Four rectangles of one colour each."""
    image = Image.new("RGB", (width, height), corners[3])
    image.paste(corners[0], (0, 0, width // 2, height // 2))
    image.paste(corners[1], (width // 2, 0, width, height // 2))
    image.paste(corners[2], (0, height // 2, width // 2, height))
    return image


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def assert_corners(decoded: DecodedImage, corners: Corners = UPRIGHT, tolerance: int = 12) -> None:
    height, width, _ = decoded.pixels.shape
    seen = [
        decoded.pixels[round(height * y), round(width * x)]
        for y, x in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
    ]
    np.testing.assert_allclose(np.array(seen, int), np.array(corners), atol=tolerance)


def fault(payload: bytes, **options: Any) -> ImageFault:
    with pytest.raises(ImageRejected) as caught:
        decode(payload, **options)
    assert caught.value.detail
    return caught.value.code


def png(
    width: int, height: int, bits: int, colour_type: int, rows: bytes, extra: bytes = b""
) -> bytes:
    """A PNG that Pillow cannot write; `rows` are without filter bytes."""
    step = len(rows) // height
    raw = b"".join(b"\0" + rows[start : start + step] for start in range(0, len(rows), step))
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


WHOLE = {
    "jpeg": encode(picture(), "JPEG", quality=95),
    "progressive": encode(picture(), "JPEG", quality=95, progressive=True),
    "png": encode(picture(), "PNG"),
    "palette": encode(picture().quantize(16), "PNG"),
    "interlaced gif": encode(picture(), "GIF", interlace=1),
    "webp": encode(picture(), "WEBP", quality=95),
    "lossless webp": encode(picture(), "WEBP", lossless=True),
    "bmp": encode(picture(), "BMP"),
    "palette bmp": encode(picture().quantize(16), "BMP"),
    "tiff": encode(picture(), "TIFF"),
    "lzw tiff": encode(picture(), "TIFF", compression="tiff_lzw"),
    "deflate tiff": encode(picture(), "TIFF", compression="tiff_deflate"),
    "jpeg tiff": encode(picture(), "TIFF", compression="jpeg", quality=95),
    "avif": encode(picture(), "AVIF", quality=95),
    "heif": encode(picture(), "HEIF", quality=95, chroma=444),
    "jpeg2000": encode(picture(), "JPEG2000"),
    "lossy jpeg2000": encode(picture(), "JPEG2000", irreversible=True),
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_allowed_format_is_decoded_upright_in_rgb(name: str) -> None:
    decoded = decode(WHOLE[name])
    assert decoded.pixels.shape == (224, 224, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.format == name.split()[-1].replace("progressive", "jpeg").replace(
        "palette", "png"
    )
    assert (decoded.width, decoded.height) == (96, 64)
    assert_corners(decoded)


def test_a_jpeg_with_a_preview_is_a_jpeg() -> None:
    preview = picture((BLACK, BLACK, BLACK, BLACK))
    decoded = decode(encode(picture(), "MPO", save_all=True, append_images=[preview]))
    assert decoded.format == "jpeg"
    assert_corners(decoded)


# The corners as a camera stores them, for each value of the EXIF tag.
STORED: dict[int, Corners] = {
    1: (RED, GREEN, BLUE, YELLOW),
    2: (GREEN, RED, YELLOW, BLUE),
    3: (YELLOW, BLUE, GREEN, RED),
    4: (BLUE, YELLOW, RED, GREEN),
    5: (RED, BLUE, GREEN, YELLOW),
    6: (GREEN, YELLOW, RED, BLUE),
    7: (YELLOW, GREEN, BLUE, RED),
    8: (BLUE, RED, YELLOW, GREEN),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    stored = picture(STORED[orientation], *((96, 64) if orientation < 5 else (64, 96)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encode(stored, kind, exif=exif, quality=95), size=(100, 200))
    assert decoded.pixels.shape == (100, 200, 3)
    assert (decoded.width, decoded.height) == (96, 64)
    assert_corners(decoded)


def test_a_large_rotated_jpeg_reports_its_original_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encode(picture(STORED[6], 1600, 2400), "JPEG", exif=exif))
    assert (decoded.width, decoded.height) == (2400, 1600)
    assert_corners(decoded)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_damaged_exif_is_ignored(kind: str) -> None:
    decoded = decode(encode(picture(), kind, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", quality=95))
    assert_corners(decoded)
    decoded = decode(encode(picture(), kind, exif=b"Exif\0\0nothing of the kind", quality=95))
    assert_corners(decoded)


def transparent(mode: str) -> Image.Image:
    """Opaque colours on the left; transparent black, then half transparent black, on the right."""
    image = picture((RED, BLACK, BLUE, BLACK)).convert("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (48, 0, 96, 32))
    alpha.paste(128, (48, 32, 96, 64))
    image.putalpha(alpha)
    return image.convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_alpha_is_flattened_on_white(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "AVIF" else {}
    decoded = decode(encode(transparent("RGBA"), kind, **options))
    assert_corners(decoded, (RED, WHITE, BLUE, (127, 127, 127)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha_is_flattened_on_white(kind: str) -> None:
    red, blue = (
        Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0)) for colour in (RED, BLUE)
    )
    decoded = decode(encode(transparent("LA"), kind))
    assert_corners(decoded, ((red,) * 3, WHITE, (blue,) * 3, (127,) * 3))  # type: ignore[arg-type]


def test_transparent_edges_do_not_darken_the_picture() -> None:
    stripes = np.zeros((224, 448, 4), np.uint8)
    stripes[:, ::2] = (255, 255, 255, 255)
    decoded = decode(encode(Image.fromarray(stripes), "PNG"))
    assert decoded.pixels.min() == 255


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_becomes_white(kind: str) -> None:
    palette = picture().quantize(4)
    index = palette.getpixel((90, 5))
    assert_corners(decode(encode(palette, kind, transparency=index)), (RED, WHITE, BLUE, YELLOW))


def test_a_palette_with_alpha_is_flattened_on_white() -> None:
    palette = picture().quantize(4)
    alphas = bytearray(b"\xff" * 4)
    alphas[int(palette.getpixel((90, 60)))] = 0  # type: ignore[arg-type]
    decoded = decode(encode(palette, "PNG", transparency=bytes(alphas)))
    assert_corners(decoded, (RED, GREEN, BLUE, WHITE))


def test_a_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    assert_corners(decode(encode(picture(), "PNG", transparency=BLUE)), (RED, GREEN, WHITE, YELLOW))


def test_a_grey_picture_has_three_equal_channels() -> None:
    grey = Image.linear_gradient("L")
    pixels = decode(encode(grey, "JPEG", quality=95)).pixels
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    np.testing.assert_allclose(pixels[:, 100, 0].astype(int), np.linspace(0, 255, 224), atol=6)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb_and_is_not_inverted(kind: str) -> None:
    payload = encode(picture().convert("CMYK"), kind, quality=95)
    assert kind == "TIFF" or b"Adobe" in payload  # whose CMYK is stored inverted
    assert_corners(decode(payload))


def test_ycbcr_tiff_becomes_rgb() -> None:
    assert_corners(decode(encode(picture().convert("YCbCr"), "TIFF")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_one_bit_pictures_become_black_and_white(kind: str) -> None:
    image = picture((WHITE, BLACK, BLACK, WHITE)).convert("1")
    assert_corners(decode(encode(image, kind)), (WHITE, BLACK, BLACK, WHITE))


def test_a_fax_tiff_becomes_black_and_white() -> None:
    image = picture((WHITE, BLACK, BLACK, WHITE)).convert("1")
    payload = encode(image, "TIFF", compression="group4")
    assert_corners(decode(payload), (WHITE, BLACK, BLACK, WHITE))


def ramp(black: float, white: float, dtype: str) -> NDArray[Any]:
    return np.tile(np.linspace(black, white, 224), (224, 1)).astype(dtype)


def assert_ramp(decoded: DecodedImage) -> None:
    expected = np.broadcast_to(np.linspace(0, 255, 224)[:, None], (224, 224, 3))
    np.testing.assert_allclose(decoded.pixels.astype(float), expected, atol=1.5)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    assert_ramp(decode(encode(Image.fromarray(ramp(0, 65535, "<u2")), kind)))


def test_big_endian_sixteen_bit_tiff_is_scaled_and_not_clipped() -> None:
    image = Image.fromarray(ramp(0, 65535, ">u2"))
    assert image.mode == "I;16B"
    payload = encode(image, "TIFF")
    assert payload.startswith(b"MM")
    assert_ramp(decode(payload))


@pytest.mark.parametrize(
    "values",
    [
        ramp(0, 1, "f4"),
        ramp(0, 255, "f4"),
        ramp(0, 65535, "f4"),
        ramp(0, 4095, "f4"),
        ramp(0, 2**20 - 1, "f4"),
        ramp(0, 255, "i4"),
        ramp(0, 65535, "i4"),
        ramp(0, 2**31 - 1, "i4"),
    ],
    ids=lambda values: f"{values.dtype}-{values.max():.0f}",
)
def test_thirty_two_bit_tiffs_are_scaled_to_their_white(values: NDArray[Any]) -> None:
    assert_ramp(decode(encode(Image.fromarray(values), "TIFF")))


def test_a_float_tiff_with_holes_is_black_there() -> None:
    values = np.full((64, 64), 0.5, "f4")
    values[:, 32:] = np.nan
    pixels = decode(encode(Image.fromarray(values), "TIFF")).pixels
    assert pixels[112, 56].tolist() == [128, 128, 128]
    assert pixels[112, 168].tolist() == [0, 0, 0]


def test_a_float_tiff_that_is_all_black_stays_black() -> None:
    assert not decode(encode(Image.new("F", (9, 9)), "TIFF")).pixels.any()


@pytest.mark.parametrize(("colour_type", "opaque"), [(2, b""), (6, b"\xff\xff")])
def test_sixteen_bit_colour_png_keeps_its_colours(colour_type: int, opaque: bytes) -> None:
    wide = [bytes(b for value in colour for b in (value, value)) + opaque for colour in UPRIGHT]
    rows = b"".join((wide[y * 2] * 8 + wide[y * 2 + 1] * 8) * 8 for y in (0, 1))
    assert_corners(decode(png(16, 16, 16, colour_type, rows)))


def test_sixteen_bit_grey_png_with_a_transparent_value_keeps_the_others() -> None:
    rows = b"\x40\x00" * 8 + b"\xc0\x00" * 8
    payload = png(8, 2, 16, 0, rows, extra=chunk(b"tRNS", b"\xc0\x00"))
    pixels = decode(payload).pixels
    assert pixels[10, 112].tolist() == [64, 64, 64]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GIF", {}), ("WEBP", {"quality": 95}), ("PNG", {}), ("AVIF", {"quality": 95}), ("TIFF", {})],
)
def test_an_animated_picture_is_its_first_frame(kind: str, options: dict[str, Any]) -> None:
    others = [picture((BLACK, WHITE, BLACK, WHITE)), picture((WHITE, BLACK, WHITE, BLACK))]
    payload = encode(picture(), kind, save_all=True, append_images=others, duration=100, **options)
    with Image.open(io.BytesIO(payload)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert_corners(decode(payload))


@pytest.mark.parametrize("mode", ["P", "L"])
@pytest.mark.parametrize("side", [224, 2240])
def test_what_the_first_frame_of_a_gif_leaves_out_is_white(mode: str, side: int) -> None:
    frame = Image.new("L", (side // 2, side // 2), 80)
    payload = bytearray(encode(frame.convert(mode), "GIF"))
    payload[6:10] = struct.pack("<HH", side, side)
    at = payload.index(b"," + struct.pack("<HHHH", 0, 0, side // 2, side // 2))
    payload[at + 1 : at + 5] = struct.pack("<HH", side // 4, side // 2)
    pixels = decode(bytes(payload)).pixels[4::8, 4::8, 0]
    expected = np.full((28, 28), 255)
    expected[14:, 7:21] = 80
    np.testing.assert_allclose(pixels.astype(int), expected, atol=1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 5), (8000, 230)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_tiny_and_stretched_pictures_fill_the_square(kind: str, shape: tuple[int, int]) -> None:
    decoded = decode(encode(Image.new("RGB", shape, BLUE), kind, quality=95))
    assert (decoded.width, decoded.height) == shape
    np.testing.assert_allclose(
        decoded.pixels.astype(int), np.broadcast_to(BLUE, (224, 224, 3)), atol=12
    )


def test_a_picture_is_squashed_and_not_cropped() -> None:
    striped = np.zeros((100, 1000, 3), np.uint8)
    striped[:, :50] = striped[:, -50:] = 255
    pixels = decode(encode(Image.fromarray(striped), "PNG")).pixels
    assert pixels[112, 3].min() == 255
    assert pixels[112, -4].min() == 255
    assert pixels[112, 112].max() == 0


@pytest.mark.parametrize("side", [1000, 2240])
def test_fine_detail_is_averaged_and_not_picked(side: int) -> None:
    board = (np.indices((side, side)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = decode(encode(Image.fromarray(board), "PNG")).pixels
    assert pixels.min() >= 120
    assert pixels.max() <= 135


def test_small_pictures_are_enlarged_smoothly() -> None:
    pixels = decode(encode(Image.linear_gradient("L").resize((8, 8)), "PNG")).pixels
    assert len(np.unique(pixels)) > 100


@pytest.mark.parametrize("shape", [(230, 4000), (460, 460)])
def test_a_jpeg_is_not_shrunk_below_the_target_while_decoding(shape: tuple[int, int]) -> None:
    lines = np.zeros(shape, np.uint8)
    lines[::8] = lines[1::8] = lines[2::8] = lines[3::8] = 255
    pixels = decode(encode(Image.fromarray(lines), "JPEG", quality=95)).pixels
    assert pixels[:, 112, 0].std() > 90


def test_a_large_jpeg_is_shrunk_while_decoding_and_looks_the_same() -> None:
    noise = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
    large = Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC)
    payload = encode(large, "JPEG", quality=90)

    def whole() -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(payload)) as image:
            return np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))

    def cpu_s(work: Any) -> float:
        started = time.thread_time()
        work()
        return time.thread_time() - started

    difference = np.abs(decode(payload).pixels.astype(int) - whole())
    assert difference.mean() < 2
    assert min(cpu_s(lambda: decode(payload)) for _ in range(3)) * 2 < min(
        cpu_s(whole) for _ in range(3)
    )


def jpeg_header(width: int, height: int) -> bytes:
    payload = bytearray(encode(picture(), "JPEG"))
    start = payload.index(b"\xff\xc0") + 5
    payload[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(payload)


def webp_header(width: int, height: int) -> bytes:
    payload = bytearray(WHOLE["webp"])
    start = payload.index(b"\x9d\x01\x2a") + 3
    payload[start : start + 4] = struct.pack("<HH", width, height)
    return bytes(payload)


def avif_header(width: int, height: int) -> bytes:
    payload = bytearray(WHOLE["avif"])
    start = payload.index(b"ispe") + 8
    payload[start : start + 8] = struct.pack(">II", width, height)
    return bytes(payload)


def tiff_header(width: int, height: int) -> bytes:
    payload = bytearray(encode(Image.new("L", (96, 64)), "TIFF"))
    for tag, value in ((256, width), (257, height)):
        start = payload.index(struct.pack("<HH", tag, 4)) + 8
        payload[start : start + 4] = struct.pack("<I", value)
    return bytes(payload)


def gif_frame_beyond_its_screen() -> bytes:
    payload = bytearray(encode(Image.new("L", (96, 64)), "GIF"))
    start = payload.index(b"\x2c\0\0\0\0") + 5
    payload[start : start + 4] = struct.pack("<HH", 65535, 65535)
    return bytes(payload)


def png_header(width: int, height: int) -> bytes:
    payload = encode(Image.new("1", (8, 8)), "PNG")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return payload[:8] + header + payload[8 + len(header) :]


def bmp_header(width: int, height: int) -> bytes:
    payload = bytearray(WHOLE["bmp"])
    payload[18:26] = struct.pack("<ii", width, height)
    return bytes(payload)


BOMBS = {
    "png": png_header(100_000, 100_000),
    "jpeg": jpeg_header(65_000, 65_000),
    "webp": webp_header(16_383, 16_383),
    "tiff": tiff_header(100_000, 100_000),
    "bmp": bmp_header(100_000, 100_000),
    "avif": avif_header(16_000, 16_000),
    "gif": gif_frame_beyond_its_screen(),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header(name: str) -> None:
    assert fault(BOMBS[name]) == ImageFault.TOO_MANY_PIXELS


@pytest.mark.parametrize("side", [9_600, 13_000, 14_000])
def test_only_our_own_pixel_limit_applies(side: int) -> None:
    """Pillow would warn from 89 megapixels on and refuse from 179 on."""
    assert fault(png_header(side, side)) == ImageFault.TOO_MANY_PIXELS
    assert fault(png_header(side, side), max_pixels=10**9) == ImageFault.TRUNCATED


def test_the_pixel_limit_itself_is_allowed() -> None:
    assert decode(WHOLE["png"], max_pixels=96 * 64).width == 96
    assert fault(WHOLE["png"], max_pixels=96 * 64 - 1) == ImageFault.TOO_MANY_PIXELS


TRUNCATABLE = {name: payload for name, payload in WHOLE.items() if name != "jpeg tiff"}


@pytest.mark.parametrize("name", TRUNCATABLE)
def test_a_payload_that_ends_in_its_middle_is_truncated(name: str) -> None:
    payload = TRUNCATABLE[name]
    assert fault(payload[: len(payload) * 4 // 5]) == ImageFault.TRUNCATED


@pytest.mark.parametrize("name", ["jpeg", "png", "interlaced gif", "webp"])
def test_a_payload_that_ends_in_its_header_is_truncated(name: str) -> None:
    assert fault(WHOLE[name][:15]) == ImageFault.TRUNCATED


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_payload_never_gives_other_pixels(name: str) -> None:
    payload = WHOLE[name]
    whole = decode(payload).pixels
    for length in range(0, len(payload), max(1, len(payload) // 300)):
        try:
            part = decode(payload[:length]).pixels
        except ImageRejected:
            continue
        assert np.array_equal(part, whole), length


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0",
        b"\xff\xd8",
        b"just some words",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"%PDF-1.7 ...",
        b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
        b"PK\3\4 a zip",
        b"\0" * 1000,
        bytes(range(256)) * 8,
    ],
)
def test_other_files_are_not_images(payload: bytes) -> None:
    assert fault(payload) == ImageFault.NOT_AN_IMAGE


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>Log in</html>", "an HTML page"),
        (b"<html lang=en>", "an HTML page"),
        (b"\x1f\x8b\x08", "gzip-compressed"),
        (b'{"error": "expired"}', "JSON, not a picture"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML, not a picture"),
        (b"%PDF-1.7\n\0", "a PDF, not a picture"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video, not a picture"),
        (b"PK\3\4\0", "a ZIP archive, not a picture"),
        (b"data:image/jpeg;base64,/9j/4AAQ", "text, not a picture"),
        (b"Forbidden", "text, not a picture"),
        (b"\xef\xbb\xbf\r\n" + WHOLE["jpeg"], "a JPEG behind line breaks or a byte order mark"),
        (b"\n\n" + WHOLE["png"], "a PNG behind line breaks"),
        (b"\x00\x01", "not a known image format"),
    ],
)
def test_a_payload_that_is_no_picture_is_named(payload: bytes, detail: str) -> None:
    with pytest.raises(ImageRejected, match=detail):
        decode(payload)


@pytest.mark.parametrize("kind", ["ICO", "PPM", "ICNS", "DDS", "QOI", "EPS"])
def test_pictures_that_pillow_could_read_but_are_not_allowed_are_unsupported(kind: str) -> None:
    assert fault(encode(picture(), kind)) == ImageFault.UNSUPPORTED_FORMAT


@pytest.mark.parametrize(
    "payload",
    [
        b"8BPS\0\1" + b"\0" * 50,
        b"\xff\x0a" + b"\1" * 50,
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn -->\n<svg width="9"></svg>',
    ],
    ids=["psd", "jxl", "svg", "xml svg"],
)
def test_formats_without_a_decoder_are_unsupported(payload: bytes) -> None:
    assert fault(payload) == ImageFault.UNSUPPORTED_FORMAT


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}],
    ids=str,
)
def test_a_jpeg_without_its_end_marker_is_scored_and_a_truncated_one_is_not(
    options: dict[str, Any],
) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (90, 120, 3), np.uint8)
    payload = encode(Image.fromarray(noise), "JPEG", **options)
    whole = decode(payload).pixels
    for ending in (payload[:-1], payload[:-2], payload[:-2] + b"\0" * 99):
        assert np.array_equal(decode(ending).pixels, whole)
    for lost in (5, 20, 100, len(payload) // 2):
        assert fault(payload[:-lost]) == ImageFault.TRUNCATED


def test_a_progressive_jpeg_without_its_last_scans_is_truncated() -> None:
    payload = WHOLE["progressive"]
    starts = [at for at in range(len(payload)) if payload.startswith(b"\xff\xda", at)]
    assert len(starts) > 5
    for start in starts:
        assert fault(payload[:start]) == ImageFault.TRUNCATED


@pytest.mark.parametrize("name", [b"pHYs", b"tEXt", b"tRNS", b"iCCP"])
def test_a_png_chunk_that_no_pixel_needs_may_have_a_bad_checksum(name: bytes) -> None:
    payload = WHOLE["png"]
    damaged = chunk(name, b"\0\x01\0\x01\0\x01 words")[:-4] + b"\xde\xad\xbe\xef"
    decoded = decode(payload[:33] + damaged + payload[33:])
    assert np.array_equal(decoded.pixels, decode(payload).pixels)


@pytest.mark.parametrize(("name", "mode"), [(b"IHDR", "RGB"), (b"PLTE", "P")])
def test_a_critical_png_chunk_with_a_bad_checksum_is_damaged(name: bytes, mode: str) -> None:
    payload = bytearray(encode(picture().convert(mode), "PNG"))
    at = payload.index(name)
    payload[at + 4 + int.from_bytes(payload[at - 4 : at], "big")] ^= 255
    assert fault(bytes(payload)) == ImageFault.DECODE_FAILED


@pytest.mark.parametrize("brand", [b"avif", b"mif1", b"msf1", b"miaf"])
def test_every_brand_of_avif_is_decoded_and_admitted(brand: bytes) -> None:
    payload = WHOLE["avif"].replace(b"ftypavif", b"ftyp" + brand, 1)
    assert_corners(decode(payload))
    assert detect_format(payload) == "AVIF"
    assert looks_like_image(payload[:SNIFF_BYTES])
    assert set(AVIF_BRANDS) == {b"avif", b"avis", b"mif1", b"msf1", b"miaf"}


@pytest.mark.parametrize(("bits", "count"), [(16, 1), (32, 3), (64, 1)])
def test_a_tiff_of_a_kind_that_is_not_decoded_is_unsupported(bits: int, count: int) -> None:
    payload = tiff(np.zeros((4, 4, count), f"f{bits // 8}"))
    with pytest.raises(ImageRejected, match=f"{count} x {bits}-bit floating point") as caught:
        decode(payload)
    assert caught.value.code == ImageFault.UNSUPPORTED_FORMAT


@pytest.mark.parametrize(
    ("frame", "bits", "kind"),
    [(0xC1, 12, "JPEG with 12-bit samples"), (0xC3, 8, "lossless"), (0xC5, 8, "hierarchical")],
)
def test_a_jpeg_of_a_kind_that_is_not_decoded_is_unsupported(
    frame: int, bits: int, kind: str
) -> None:
    payload = bytearray(WHOLE["jpeg"])
    at = payload.index(b"\xff\xc0")
    payload[at + 1], payload[at + 4] = frame, bits
    with pytest.raises(ImageRejected, match=kind) as caught:
        decode(bytes(payload))
    assert caught.value.code == ImageFault.UNSUPPORTED_FORMAT


def test_a_jpeg_that_states_its_height_at_its_end_is_unsupported() -> None:
    payload = WHOLE["jpeg"]
    at = payload.index(b"\xff\xc0") + 5
    height = payload[at : at + 2]
    payload = payload[:at] + b"\0\0" + payload[at + 2 : -2] + b"\xff\xdc\0\x04" + height
    with pytest.raises(ImageRejected, match="states its height behind its pixels") as caught:
        decode(payload + b"\xff\xd9")
    assert caught.value.code == ImageFault.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("name", ["avif", "heif", "jpeg2000"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_file_of_boxes_is_truncated_and_not_damaged(name: str, share: float) -> None:
    whole = WHOLE[name]
    assert fault(whole[: int(share * len(whole))]) == ImageFault.TRUNCATED


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"msf1", b"heix"])
def test_heic_is_decoded_only_where_its_package_is_installed(
    brand: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = WHOLE["heif"].replace(b"ftypheic", b"ftyp" + brand, 1)
    assert looks_like_image(payload[:SNIFF_BYTES])
    assert_corners(decode(payload))
    assert reads_heic()
    monkeypatch.setattr("model.images.decode.find_spec", lambda _: None)
    assert not reads_heic()
    with pytest.raises(ImageRejected, match="package pillow-heif") as caught:
        decode(payload)
    assert caught.value.code == ImageFault.UNSUPPORTED_FORMAT


def test_jpeg_2000_is_admitted_and_decoded_with_and_without_boxes() -> None:
    codestream = encode(picture(), "JPEG2000", no_jp2=True)
    for payload in (codestream, WHOLE["jpeg2000"]):
        assert looks_like_image(payload[:SNIFF_BYTES])
        assert_corners(decode(payload))


def test_sixteen_bit_jpeg_2000_is_scaled() -> None:
    assert_ramp(decode(encode(Image.fromarray(ramp(0, 65535, "<u2")), "JPEG2000")))


def test_a_damaged_picture_fails_to_decode() -> None:
    payload = bytearray(WHOLE["png"])
    start = payload.index(b"IDAT") + 12
    payload[start : start + 8] = b"\0\1\2\3\4\5\6\7"
    assert fault(bytes(payload)) == ImageFault.DECODE_FAILED


def test_a_picture_with_a_damaged_header_fails_to_decode() -> None:
    payload = WHOLE["png"].replace(b"IHDR", b"JHDR")
    assert fault(payload) == ImageFault.DECODE_FAILED


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_damaged_payload_is_decoded_or_rejected(
    name: str, flips: list[tuple[float, int]]
) -> None:
    payload = bytearray(WHOLE[name])
    for place, value in flips:
        payload[int(place * len(payload))] = value
    try:
        decoded = decode(bytes(payload), max_pixels=1_000_000)
    except ImageRejected:
        return
    assert decoded.pixels.shape == (224, 224, 3)


def test_concurrent_threads_get_the_pixels_of_their_own_pictures() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    payloads = [
        *WHOLE.values(),
        encode(picture(STORED[6], 64, 96), "JPEG", exif=exif),
        encode(transparent("RGBA"), "PNG"),
        encode(picture((BLACK, WHITE, RED, BLUE), 900, 700), "JPEG"),
    ]
    expected = [decode(payload).pixels for payload in payloads]
    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(lambda payload: decode(payload).pixels, payloads * 20))
    for index, pixels in enumerate(seen):
        assert np.array_equal(pixels, expected[index % len(payloads)])
