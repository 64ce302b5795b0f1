"""Detects the image format of a payload by its first bytes, and whether it is truncated."""

import re
from typing import Literal

# Major brands with which an AVIF file can begin; the last three are shared with HEIF.
AVIF_BRANDS = (b"avif", b"avis", b"mif1", b"msf1", b"miaf")

_SIGNATURES = {
    name: re.compile(pattern, re.DOTALL)
    for name, pattern in {
        "JPEG": rb"\xff\xd8\xff",
        "PNG": rb"\x89PNG\r\n\x1a\n",
        "WEBP": rb"RIFF....WEBP",
        "GIF": rb"GIF8[79]a",
        "BMP": rb"BM.{4}\0\0\0\0",
        "TIFF": rb"II[*+]\0|MM\0[*+]",
        "AVIF": rb"....ftyp(avi[fs]|(mif1|msf1|miaf).{4}(.{4}){,15}?avi[fs])",
        "HEIF": rb"....ftyp(hei|hev|mif|msf|mia)",
        "JPEG2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
        "JPEG XL": rb"\0\0\0\x0cJXL |\xff\x0a",
        "SVG": rb"(\xef\xbb\xbf)?\s{,99}<(svg\b|!DOCTYPE svg\b|(\?xml|!--).{,999}?<svg\b)",
        "ICO": rb"\0\0[\x01\x02]\0",
        "PSD": rb"8BPS",
        "XCF": rb"gimp xcf",
        "QOI": rb"qoif",
        "DDS": rb"DDS ",
        "PNM": rb"P[1-7]\s",
        "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
        "ICNS": rb"icns",
        "OpenEXR": rb"v/1\x01",
        "Radiance HDR": rb"#\?(RADIANCE|RGBE)",
        "camera raw": rb"FUJIFILM|II(RO|U\0)|....ftypcrx",
    }.items()
}

_BOX_BYTES, _MAX_BOXES = 8, 1000
_SEEN_BYTES = 400
# What scripts of web pages print before a picture, which browsers do not show then either.
_BEFORE = b"\xef\xbb\xbf\t\n\r "
_SHOWN_ALONE = ("JPEG", "PNG", "WEBP", "GIF")
# What hosts send instead of a picture.
_OTHERS = {
    what: re.compile(rb"(?:\xef\xbb\xbf)?\s{,99}(?:" + pattern + rb")", re.DOTALL | re.IGNORECASE)
    for what, pattern in {
        "an HTML page": rb"<(!doctype html|html|head|body)\b",
        "XML": rb"<\?xml\b",
        "JSON": rb"[\[{]\s{,99}[\"\[{\]}]",
        "a PDF": rb"%PDF-",
        "a video": rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ",
        "a ZIP archive": rb"PK\x03\x04",
        "text": rb"[\t\n\r -~]{4,}\Z|[\t\n\r -~]{100}",
    }.items()
}


def detect_format(payload: bytes) -> str | None:
    """The image format whose signature the payload begins with, or None."""
    return next((name for name, start in _SIGNATURES.items() if start.match(payload)), None)


def describe_other(payload: bytes) -> str:
    """What a payload is that is no image format."""
    if not payload:
        return "the file is empty"
    if (begun := detect_format(payload[:_SEEN_BYTES].lstrip(_BEFORE))) in _SHOWN_ALONE:
        return f"a {begun} behind line breaks or a byte order mark: remove those bytes"
    for what, beginning in _OTHERS.items():
        if beginning.match(payload[:_SEEN_BYTES]):
            return f"{what}, not a picture"
    if payload.startswith(b"\x1f\x8b"):
        return "gzip-compressed data, not a picture: unpack it first"
    return "not a known image format"


def _ends_in_a_box(payload: bytes) -> bool:
    at = 0
    for _ in range(_MAX_BOXES):
        size = int.from_bytes(payload[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(payload[at + 8 : at + 16], "big")
        at += size
        if size < _BOX_BYTES or at == len(payload):
            return False
        if at > len(payload):
            return True
    return False


def is_truncated(payload: bytes) -> bool:
    """Whether the end of a payload is missing; False if only a decoder can tell."""
    match detect_format(payload):
        case "JPEG":
            return b"\xff\xd9" not in payload
        case "PNG":
            return b"IEND" not in payload
        case "GIF":
            return not payload.endswith(b";")
        case "WEBP":
            return len(payload) < 8 + int.from_bytes(payload[4:8], "little")
        case "BMP":
            return len(payload) < int.from_bytes(payload[2:6], "little")
        case "JPEG2000":
            return payload.find(b"\xff\xd9", payload.find(b"\xff\x4f\xff\x51")) < 0
        case "AVIF" | "HEIF":
            return _ends_in_a_box(payload)
        case "TIFF":
            order: Literal["little", "big"] = "little" if payload[:1] == b"I" else "big"
            directory = int.from_bytes(payload[4:8], order)
            entries = int.from_bytes(payload[directory : directory + 2], order)
            return len(payload) <= directory + 2 + 12 * entries
        case _:
            return False
