"""Converts pictures of other colour spaces to sRGB by their ICC profiles."""

import io
from functools import lru_cache

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
