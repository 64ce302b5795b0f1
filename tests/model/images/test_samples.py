"""Pictures of more than 8 bits, with a sign or of floats: each shows the ramp that it stores."""

import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.images.decode import decode
from model.images.result import ImageFault, ImageRejected
from tests.hostile import chunk
from tests.model.images.test_decode import png
from tests.model.images.tiff_file import (
    COLOUR_MAP,
    DESCRIPTION,
    EXTRA,
    MAX_VALUE,
    MIN_VALUE,
    MISSING,
    SIGNED_MAX,
    SIGNED_MIN,
    tiff,
)

# From black to white, and not the same backwards.
RAMP = np.tile(np.linspace(0, 1, 224) ** 2, (224, 1))
COLOURS = np.stack([RAMP, RAMP / 2, 1 - RAMP], axis=2)
every_way = pytest.mark.parametrize(
    ("order", "compress"), [("<", False), (">", False), ("<", True), (">", True)]
)


def scaled(shares: NDArray[Any], black: float, white: float, dtype: str) -> NDArray[Any]:
    """Shares of 0 to 1 as samples of (height, width, samples)."""
    samples = black + shares * (white - black)
    samples = samples if dtype.startswith("f") else samples.round()
    return samples.astype(dtype).reshape(*shares.shape[:2], -1)


def assert_shows(payload: bytes, shares: NDArray[Any], tolerance: float = 1.5) -> None:
    """The pixels of the decoded picture are these shares of white."""
    if shares.ndim == 2:
        shares = np.repeat(shares[..., None], 3, axis=2)
    seen = decode(payload, size=(224, 224)).pixels.astype(float)
    np.testing.assert_allclose(seen, shares * 255, atol=tolerance)


@every_way
@pytest.mark.parametrize("photometric", [0, 1], ids=["white is zero", "black is zero"])
@pytest.mark.parametrize(
    ("black", "white", "dtype"),
    [
        (0, 255, "u1"),
        (0, 65535, "u2"),
        (0, 4095, "u2"),
        (0, 1023, "u2"),
        (0, 255, "u2"),
        (0, 2**32 - 1, "u4"),
        (0, 2**31 - 1, "u4"),
        (0, 65535, "u4"),
        (0, 4095, "u4"),
        (0, 4095, "i2"),
        (0, 32767, "i2"),
        (-32768, 32767, "i2"),
        (-4096, 4095, "i2"),
        (0, 2**31 - 1, "i4"),
        (-(2**31), 2**31 - 1, "i4"),
        (0, 1, "f4"),
        (-1, 1, "f4"),
        (0, 255, "f4"),
        (0, 4095, "f4"),
        (0, 65535, "f4"),
        (-4095, 4095, "f4"),
    ],
)
def test_grey_of_every_kind_is_scaled_to_its_white(
    black: float, white: float, dtype: str, photometric: int, order: str, compress: bool
) -> None:
    stored = RAMP if photometric else 1 - RAMP
    values = scaled(stored, black, white, dtype)
    assert_shows(tiff(values, photometric, order, compress), RAMP)


@every_way
@pytest.mark.parametrize("photometric", [0, 1], ids=["white is zero", "black is zero"])
def test_packed_samples_of_12_bits_are_scaled_by_their_bits(
    photometric: int, order: str, compress: bool
) -> None:
    # A dark picture stays dark, because the file states its bits.
    stored = RAMP / 4 if photometric else 1 - RAMP / 4
    values = scaled(stored, 0, 4095, "u2")
    assert_shows(tiff(values, photometric, order, compress, bits=12), RAMP / 4)


@every_way
@pytest.mark.parametrize(("black", "white"), [(-128, 127), (0, 127)])
def test_signed_samples_of_8_bits_are_not_read_as_unsigned(
    black: int, white: int, order: str, compress: bool
) -> None:
    assert_shows(tiff(scaled(RAMP, black, white, "i1"), 1, order, compress), RAMP, tolerance=2.5)


@every_way
@pytest.mark.parametrize(("white", "dtype"), [(255, "u1"), (65535, "u2")])
@pytest.mark.parametrize(
    ("alpha", "planar"), [(None, False), (0, False), (2, False), (None, True), (2, True)]
)
def test_colours_of_tiffs_keep_their_pixels(
    white: int, dtype: str, alpha: int | None, planar: bool, order: str, compress: bool
) -> None:
    shares, shown, tags = COLOURS, COLOURS, {}
    if alpha is not None:
        opacity = np.full((224, 224, 1), 0.5)
        shares, tags = np.concatenate([COLOURS, opacity], axis=2), {EXTRA: alpha}
        shown = COLOURS / 2 + 0.5 if alpha else COLOURS
    payload = tiff(scaled(shares, 0, white, dtype), 2, order, compress, planar, tags=tags)
    assert_shows(payload, shown)


@every_way
@pytest.mark.parametrize("white", [4095, 1023, 511])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_colours_of_fewer_bits_in_16_are_scaled_like_grey(
    white: int, has_alpha: bool, order: str, compress: bool
) -> None:
    values, shown, tags = scaled(COLOURS, 0, white, "u2"), COLOURS, {}
    if has_alpha:
        opacity = np.full((224, 224, 1), 32768, "u2")
        values, tags = np.concatenate([values, opacity], axis=2), {EXTRA: 2}
        shown = COLOURS / 2 + 0.5
    assert_shows(tiff(values, 2, order, compress, tags=tags), shown)


def big_endian(shares: NDArray[Any], white: int) -> bytes:
    return scaled(shares, 0, white, ">u2").tobytes()


@pytest.mark.parametrize("white", [65535, 4095, 1023, 255])
def test_pngs_of_16_bits_are_scaled_to_their_white(white: int) -> None:
    half = np.full((224, 224, 1), 32768, ">u2")
    grey, colours = scaled(RAMP, 0, white, ">u2"), scaled(COLOURS, 0, white, ">u2")
    with_alpha = [np.concatenate([v, half], axis=2).astype(">u2") for v in (grey, colours)]
    assert_shows(png(224, 224, 16, 0, grey.tobytes()), RAMP)
    assert_shows(png(224, 224, 16, 2, colours.tobytes()), COLOURS)
    assert_shows(png(224, 224, 16, 4, with_alpha[0].tobytes()), RAMP / 2 + 0.5)
    assert_shows(png(224, 224, 16, 6, with_alpha[1].tobytes()), COLOURS / 2 + 0.5)


def test_the_significant_bits_of_a_png_tell_a_dark_picture_from_one_of_fewer_bits() -> None:
    sbit = chunk(b"sBIT", b"\x0c")
    assert_shows(png(224, 224, 16, 0, big_endian(RAMP / 4, 65535), sbit), RAMP / 4)
    assert_shows(png(224, 224, 16, 0, big_endian(RAMP / 4, 4095), sbit), RAMP / 4)
    sbit = chunk(b"sBIT", b"\x0c" * 3)
    assert_shows(png(224, 224, 16, 2, big_endian(COLOURS / 4, 65535), sbit), COLOURS / 4)
    assert_shows(png(224, 224, 16, 2, big_endian(COLOURS / 4, 4095), sbit), COLOURS / 4)


@every_way
@pytest.mark.parametrize(
    ("black", "white", "dtype", "tags"),
    [
        (0, 3000, "u2", {MAX_VALUE: 3000}),
        (500, 3000, "u2", {MIN_VALUE: 500, MAX_VALUE: 3000}),
        (0, 300_000, "u4", {SIGNED_MAX: 300_000}),
        (-10, 20, "f4", {SIGNED_MIN: -10.0, SIGNED_MAX: 20.0}),
        (0, 0.25, "f4", {SIGNED_MAX: 0.25}),
        (500, 3500, "u2", {DESCRIPTION: "ImageJ=1.54f\nunit=\nmin=500.0\nmax=3500.0\n"}),
        (0.1, 0.2, "f4", {DESCRIPTION: "ImageJ=1.54f\nmin=0.1\nmax=0.2\n"}),
    ],
)
def test_a_range_that_the_file_states_is_its_black_and_white(
    black: float, white: float, dtype: str, tags: dict[int, Any], order: str, compress: bool
) -> None:
    assert_shows(tiff(scaled(RAMP, black, white, dtype), 1, order, compress, tags=tags), RAMP)


def test_significant_bits_of_ome_are_the_white_of_a_dark_picture() -> None:
    ome = '<OME><Image><Pixels Type="uint16" SignificantBits="14" SizeX="9"/></Image></OME>'
    values = scaled(RAMP / 8, 0, 16383, "u2")
    assert_shows(tiff(values, tags={DESCRIPTION: ome}), RAMP / 8)


def test_imagej_cuts_off_what_is_beyond_its_range_and_others_are_then_wrong() -> None:
    values = scaled(RAMP, 0, 65535, "u2")
    cut = tiff(values, tags={DESCRIPTION: "ImageJ=1.54f\nmin=0.0\nmax=32767.5\n"})
    assert_shows(cut, (RAMP * 2).clip(0, 1))
    assert_shows(tiff(values, tags={MAX_VALUE: 255}), RAMP)
    assert_shows(tiff(values, tags={DESCRIPTION: "ImageJ=1.54f\nmin=9\nmax=nan\n"}), RAMP)


@every_way
@pytest.mark.parametrize(
    ("mark", "tags", "shown"),
    [
        (np.nan, {}, 0),
        (np.inf, {}, 1),
        (-np.inf, {}, 0),
        (-3.4028234663852886e38, {}, 0),
        (-9999, {MISSING: "-9999"}, 0),
        (-0.01, {}, 0),
        (1.05, {}, 1),
    ],
)
def test_floats_that_are_no_samples_change_no_others(
    mark: float, tags: dict[int, Any], shown: float, order: str, compress: bool
) -> None:
    values, shares = scaled(RAMP, 0, 1, "f4"), RAMP.copy()
    values[:50], shares[:50] = mark, shown
    assert_shows(tiff(values, 1, order, compress, tags=tags), shares)


def test_all_black_and_empty_ranges_stay_black() -> None:
    for dtype in ("u2", "u4", "i2", "i4", "f4"):
        assert not decode(tiff(np.zeros((9, 9, 1), dtype))).pixels.any()
    assert not decode(tiff(np.full((9, 9, 1), np.nan, "f4"))).pixels.any()


def test_a_damaged_tag_of_a_range_is_ignored() -> None:
    payload = bytearray(tiff(scaled(RAMP, 0, 4095, "u2"), tags={MAX_VALUE: 3}))
    at = payload.index(struct.pack("<HHI", MAX_VALUE, 4, 1))
    payload[at : at + 8] = struct.pack("<HHI", MAX_VALUE, 5, 1)
    assert_shows(bytes(payload), RAMP)


@pytest.mark.parametrize("step", [1, 257], ids=["8 bits", "16 bits"])
def test_a_palette_of_8_bits_shows_the_same_as_one_of_16(step: int) -> None:
    levels = [step * (255 - level) for level in range(256)]
    payload = tiff(scaled(1 - RAMP, 0, 255, "u1"), 3, tags={COLOUR_MAP: levels * 3})
    assert_shows(payload, RAMP)


def premultiplied() -> NDArray[np.uint8]:
    return scaled(np.stack([RAMP / 2, np.full((224, 224), 0.5)], axis=2), 0, 255, "u1")


def test_grey_with_premultiplied_alpha_is_flattened_on_white() -> None:
    assert_shows(tiff(premultiplied(), tags={EXTRA: 1}), RAMP / 2 + 0.5, tolerance=2.5)


@pytest.mark.parametrize(
    "payload",
    [
        tiff(premultiplied(), compress=True, planar=True, tags={EXTRA: 2}),
        tiff(premultiplied(), compress=True, planar=True, tags={EXTRA: 1}),
        tiff(scaled(COLOURS, 0, 4095, "u2"), 2, planar=True),
        tiff(scaled(COLOURS, 0, 1, "f4"), 2),
        tiff(np.zeros((9, 9, 4), "u1"), 2, planar=True, tags={EXTRA: 0}),
        tiff(scaled(RAMP, 0, 1, "f8")),
        tiff(scaled(RAMP, -128, 127, "i1"), photometric=0),
    ],
)
def test_kinds_that_would_be_read_wrongly_are_unsupported(payload: bytes) -> None:
    with pytest.raises(ImageRejected, match="TIFF with") as caught:
        decode(payload)
    assert caught.value.code == ImageFault.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("compress", [False, True])
def test_large_dark_colours_of_16_bits_are_decoded_within_their_memory(compress: bool) -> None:
    values = np.zeros((3000, 4000, 3), "u2")
    values[:1500] = 4095
    pixels = decode(tiff(values, 2, compress=compress)).pixels
    assert (pixels[50] == 255).all()
    assert not pixels[200].any()
