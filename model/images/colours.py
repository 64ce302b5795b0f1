"""Converts pictures of other colour spaces to sRGB, by ICC profiles or the primaries they state."""

import io
import re
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# Profiles of printers have up to about 2 MB.
MAX_PROFILE_BYTES = 4_000_000
# A profile that changes no colour by more than this, of 255, is one of sRGB.
_SAME_LEVELS = 4
# Cameras and screens have smaller ones, most pictures of a job the same.
_CACHED_BYTES = 16_000
# Others are damaged.
_GAMMAS = (0.1, 5)
_SRGB_GAMMA, _SAME_EXPONENT = 2.2, 0.05
_MODES = {"RGB ": "RGB", "CMYK": "CMYK"}
# Primaries and transfer function of a PNG, and of an AVIF or HEIC.
_CICP = re.compile(rb"\0\0\0\x04cICP(.)(.)", re.DOTALL)
_NCLX = re.compile(rb"colrnclx\0(.)\0(.)", re.DOTALL)
# Code points of ITU-T H.273 for transfer functions that are about that of sRGB; not those of HDR.
_LIKE_SRGB = (1, 6, 13, 14, 15)
# From linear light of these primaries, BT.2020 and Display P3, to that of sRGB.
_TO_SRGB = {
    9: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    12: ((1.2249, -0.2247, -0.0002), (-0.0420, 1.0419, 0.0001), (-0.0197, -0.0786, 1.0979)),
}
_SRGB = ImageCms.createProfile("sRGB")
# Every colour of 0, 51, ..., 255 in each channel.
_PROBE = Image.frombytes(
    "RGB",
    (36, 6),
    bytes(51 * level for at in range(216) for level in (at // 36, at // 6 % 6, at % 6)),
)


def to_srgb(image: Image.Image, profile: bytes | None, gamma: float | None = None) -> Image.Image:
    """The picture as RGB; pixels of RGB and CMYK are converted by the profile.

    A profile of sRGB changes nothing. One that is damaged, larger than MAX_PROFILE_BYTES or of
    another kind of pixels is ignored. Without a profile, `gamma` is that of a PNG's samples, such
    as 1 for linear light and 1 / 2.2 for those of sRGB.
    """
    if not profile and gamma and _GAMMAS[0] < gamma < _GAMMAS[1]:
        exponent = 1 / (_SRGB_GAMMA * gamma)
        if abs(exponent - 1) > _SAME_EXPONENT:
            levels = [round(255 * (level / 255) ** exponent) for level in range(256)]
            return image.convert("RGB").point(levels * 3)
    converted = None
    if profile and len(profile) <= MAX_PROFILE_BYTES and image.mode in _MODES.values():
        find = _cached if len(profile) <= _CACHED_BYTES else _transform
        try:
            if transform := find(profile, image.mode):
                converted = ImageCms.applyTransform(image, transform)
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError, MemoryError):
            pass
    return converted or image.convert("RGB")


def wide_primaries(payload: bytes, format_: str | None) -> int | None:
    """The code point of the primaries that a PNG, AVIF or HEIC states, if its colours need them.

    None for those of sRGB, and for HDR, which has another transfer function.
    """
    if format_ == "PNG":
        stated = _CICP.search(payload, 0, max(payload.find(b"IDAT"), 0))
    else:
        stated = _NCLX.search(payload) if format_ in ("AVIF", "HEIF") else None
    if stated is None or stated[2][0] not in _LIKE_SRGB:
        return None
    return stated[1][0] if stated[1][0] in _TO_SRGB else None


def from_primaries(image: Image.Image, primaries: int) -> Image.Image:
    """The picture, whose colours are of the primaries that `wide_primaries` gives, in sRGB."""
    levels = np.arange(256) / 255
    to_light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    light = to_light[np.asarray(image.convert("RGB"))] @ np.transpose(_TO_SRGB[primaries])
    light = light.clip(0, 1)
    shown = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return Image.fromarray((255 * shown).round().astype(np.uint8))


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if _MODES.get(source.profile.xcolor_space) != mode:
        return None
    transform = ImageCms.buildTransform(
        source,
        _SRGB,
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return None if mode == "RGB" and _is_identity(transform) else transform


_cached = lru_cache(maxsize=8)(_transform)


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    probed = ImageCms.applyTransform(_PROBE, transform)
    assert probed
    return all(
        abs(after - before) <= _SAME_LEVELS
        for before, after in zip(_PROBE.tobytes(), probed.tobytes(), strict=True)
    )
