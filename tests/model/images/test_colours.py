"""Pictures with colour profiles get the pixels that they would have in sRGB."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from model.images.colours import MAX_PROFILE_BYTES
from model.images.decode import decode
from tests.model.images.profiles import ADOBE_RGB, DISPLAY_P3, cmyk_profile, rgb_profile

pillow_heif.register_heif_opener()
SIDE = 64
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
P3 = rgb_profile(DISPLAY_P3)


def colours(mode: str = "RGB") -> Image.Image:
    """Give a picture of smooth, partly saturated colours."""
    down, across = np.mgrid[0:SIDE, 0:SIDE] * 4
    pixels = np.stack([down, across, 255 - (down + across) // 2], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(payload: bytes) -> np.ndarray[Any, Any]:
    return decode(payload, (SIDE, SIDE)).pixels.astype(int)


@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_a_picture_in_a_wide_colour_space_is_scored_as_what_it_shows(
    kind: str, options: dict[str, Any], primaries: tuple[tuple[float, ...], ...]
) -> None:
    wide = ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile(primaries)))
    # Colours that both spaces have.
    shown = colours().point(lambda level: 80 + level // 3)
    stored = ImageCms.profileToProfile(shown, ImageCms.createProfile("sRGB"), wide)
    assert stored
    payload = encode(stored, kind, icc_profile=wide.tobytes(), **options)
    ignored = np.abs(np.asarray(stored, int) - np.asarray(shown, int))
    assert np.abs(pixels(payload) - np.asarray(shown)).max() <= 8 < ignored.max()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
        ("HEIF", {"quality": 100, "chroma": 444}),
    ],
)
def test_a_picture_that_states_wide_primaries_is_scored_as_what_it_shows(
    kind: str, options: dict[str, Any]
) -> None:
    wide = ImageCms.ImageCmsProfile(io.BytesIO(P3))
    shown = colours().point(lambda level: 80 + level // 3)
    stored = ImageCms.profileToProfile(shown, ImageCms.createProfile("sRGB"), wide)
    assert stored
    del stored.info["icc_profile"]
    payload = encode(stored, kind, **options)

    def stating(primaries: int, transfer: int = 13) -> bytes:
        if kind == "PNG":
            chunk = b"cICP" + bytes((primaries, transfer, 0, 1))
            chunk = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
            return payload.replace(payload[:33], payload[:33] + chunk)
        at = payload.index(b"colrnclx") + 8
        return payload[:at] + struct.pack(">HH", primaries, transfer) + payload[at + 4 :]

    ignored = np.abs(np.asarray(stored, int) - np.asarray(shown, int))
    assert np.abs(pixels(stating(12)) - np.asarray(shown)).max() <= 8 < ignored.max()
    assert np.abs(pixels(stating(9)) - np.asarray(shown)).max() > 8, "BT.2020 is wider"
    # Those of sRGB, unknown ones, and those of HDR, change nothing.
    for primaries, transfer in ((1, 13), (2, 2), (9, 16)):
        assert np.abs(pixels(stating(primaries, transfer)) - np.asarray(stored)).max() <= 8


@pytest.mark.parametrize("profile", [SRGB, b"", b"no profile", P3[:300], P3[:128] + b"\xff" * 400])
def test_a_profile_of_srgb_and_a_damaged_one_change_nothing(profile: bytes) -> None:
    plain = encode(colours(), "PNG")
    tagged = encode(colours(), "PNG", icc_profile=profile)
    assert (pixels(tagged) == pixels(plain)).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 1 / 2.2, 0.00001])
def test_a_png_of_another_gamma_is_scored_as_what_it_shows(gamma: float, mode: str) -> None:
    shown = colours(mode)
    to_stored = 2.2 * gamma if gamma > 0.1 else 1.0  # others are damaged
    stored = shown.convert("RGB" if mode == "P" else mode)
    stored = stored.point(lambda level: round(255 * (level / 255) ** to_stored))
    if mode == "P":
        shown.putpalette(
            [round(255 * (level / 255) ** to_stored) for level in shown.getpalette() or []]
        )
        stored = shown
    plain = encode(stored, "PNG")
    gama = b"gAMA" + round(gamma * 100_000).to_bytes(4, "big")
    chunk = (4).to_bytes(4, "big") + gama + zlib.crc32(gama).to_bytes(4, "big")
    tagged = plain[:33] + chunk + plain[33:]
    assert np.abs(pixels(tagged) - np.asarray(colours(mode).convert("RGB"), int)).max() <= 16
    srgb = b"sRGB\0"
    chunk += (1).to_bytes(4, "big") + srgb + zlib.crc32(srgb).to_bytes(4, "big")
    assert (pixels(plain[:33] + chunk + plain[33:]) == pixels(plain)).all()


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", LAB),
        ("RGB", cmyk_profile()),
        ("L", P3),
        ("RGB", P3 + bytes(MAX_PROFILE_BYTES)),
        # It names more curves than it has.
        ("RGB", P3.replace(b"curv\0\0\0\0\0\0\0\1", b"curv\0\0\0\0\xff\xff\xff\xff")),
    ],
)
def test_a_profile_that_does_not_fit_is_ignored(mode: str, profile: bytes) -> None:
    plain = encode(colours(mode), "TIFF")
    tagged = encode(colours(mode), "TIFF", icc_profile=profile)
    assert (pixels(tagged) == pixels(plain)).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(kind: str) -> None:
    inks = colours("CMYK")
    profile = cmyk_profile()
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    expected = ImageCms.profileToProfile(
        inks,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    found = pixels(encode(inks, kind, icc_profile=profile, **options))
    assert np.abs(found - np.asarray(expected)).max() <= 8
    assert np.abs(found - np.asarray(inks.convert("RGB"))).max() > 30


def test_a_quarter_turn_and_transparency_are_applied_as_without_a_profile() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = pixels(encode(colours("RGBA"), "PNG", icc_profile=P3, exif=exif))
    upright = pixels(encode(colours("RGBA"), "PNG", icc_profile=P3))
    assert (turned == np.rot90(upright, -1)).all()
    clear = Image.new("RGBA", (SIDE, SIDE))
    assert (pixels(encode(clear, "PNG", icc_profile=P3)) == 255).all()
