"""Pictures an attacker would bring, made by code; small, and the same at every run."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def picture(width: int = 48, height: int = 32, mode: str = "RGB") -> Image.Image:
    """Draw a gradient."""
    return Image.linear_gradient("L").resize((width, height)).convert(mode)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Give a picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """Give a chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(*chunks: bytes, image: Image.Image | None = None) -> bytes:
    """Give a PNG with chunks put behind its header."""
    payload = encode(image or picture(), "PNG")
    return payload[:33] + b"".join(chunks) + payload[33:]


def jpeg_with(segments: bytes, **options: Any) -> bytes:
    """Give a JPEG with bytes put behind its start."""
    payload = encode(picture(), "JPEG", **options)
    return payload[:2] + segments + payload[2:]


def segment(code: int, body: bytes) -> bytes:
    """Give a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


def tiff(
    tags: dict[int, tuple[int, int, int]], behind: bytes = b"", following: int | None = None
) -> bytes:
    """Give a TIFF of one directory, made of number: (type, count, value or offset)."""
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    end = struct.pack("<I", 8 if following is None else following)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + end + behind


def _tiff_tags(width: int, height: int, **more: tuple[int, int, int]) -> dict[int, Any]:
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1)}
    return tags | {int(name[1:]): entry for name, entry in more.items()}


def _deflated_tiff(width: int, height: int, rows: int) -> bytes:
    strip = zlib.compress(b"\0" * 4_000_000, 9)
    shape = {"_273": (4, 1, 158), "_278": (4, 1, rows), "_279": (4, 1, len(strip))}
    return tiff(_tiff_tags(width, height, **shape), b"\0" * 48 + strip, 0)


def _tiled_tiff(side: int) -> bytes:
    strip = zlib.compress(b"\0" * 4_000_000, 9)
    tile = {"_322": (4, 1, side), "_323": (4, 1, side), "_324": (4, 1, 170)}
    return tiff(_tiff_tags(48, 32, **tile, _325=(4, 1, len(strip))), b"\0" * 48 + strip, 0)


def jpeg_of_scans(side: int, count: int) -> bytes:
    """Give a progressive JPEG whose last scan is there `count` times."""
    payload = encode(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    last = payload.rindex(b"\xff\xda")
    return payload[:last] + payload[last:-2] * count + payload[-2:]


def _sized(payload: bytes, mark: bytes, skip: int, numbers: bytes) -> bytes:
    at = payload.index(mark) + len(mark) + skip
    return payload[:at] + numbers + payload[at + len(numbers) :]


def _gif(*blocks: bytes, image: bytes = b"") -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b"".join(blocks) + image + b";"


def _bmp(width: int, height: int, compression: int, code: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, 0, 0, 0, 256, 0)
    colours = b"".join(bytes((i, i, 255 - i, 0)) for i in range(256))
    size = 14 + len(header) + len(colours)
    return b"BM" + struct.pack("<III", size + len(code), 0, size) + header + colours + code


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("run.sh", "rm -rf /")
    return file.getvalue()


def _frames(kind: str, count: int, **options: Any) -> bytes:
    others = [Image.new("RGB", (48, 32), (number % 256, 0, 0)) for number in range(count)]
    return encode(picture(), kind, save_all=True, append_images=others, duration=10, **options)


HTML = b"<!DOCTYPE html><script>alert(1)</script>"
_EXIF_LOOP = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 0x112, 3, 2**30, 8) * 5000
_BIG_EXIF = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x112, 3, 2**20, 8) + b"\1\0" * 2**20

# What must be refused, and by which code; a set where more than one is right.
REJECTED: dict[str, tuple[set[str], Callable[[], bytes]]] = {
    "png of 10,000 megapixels": (
        {"too_many_pixels"},
        lambda: _sized(encode(picture(), "PNG"), b"IHDR", 0, struct.pack(">II", 100_000, 100_000)),
    ),
    "png with a text of 100 MB": (
        {"decode_failed"},
        lambda: png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 100_000_000, 9))),
    ),
    "png with 70 texts of 1 MB": (
        {"decode_failed"},
        lambda: png_with(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 1_000_000))] * 70),
    ),
    "png with a profile of 100 MB": (
        {"decode_failed"},
        lambda: png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 100_000_000, 9))),
    ),
    "png with 60,000 chunks": (
        {"decode_failed"},
        lambda: png_with(chunk(b"prVt", b"") * 60_000),
    ),
    "png with two headers": (
        {"too_many_pixels", "decode_failed"},
        lambda: png_with(chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 5000, 8, 2, 0, 0, 0))),
    ),
    "png with 2 MB of EXIF": ({"decode_failed"}, lambda: png_with(chunk(b"eXIf", _BIG_EXIF))),
    "png of no width": (
        {"decode_failed"},
        lambda: _sized(encode(picture(), "PNG"), b"IHDR", 0, struct.pack(">II", 0, 32)),
    ),
    "jpeg of 4,000 megapixels": (
        {"too_many_pixels"},
        lambda: _sized(encode(picture(), "JPEG"), b"\xff\xc0", 3, struct.pack(">HH", 65500, 65500)),
    ),
    "jpeg of 20,000 scans": ({"too_many_pixels"}, lambda: jpeg_of_scans(256, 20_000)),
    "jpeg of no height": (
        {"decode_failed"},
        lambda: _sized(encode(picture(), "JPEG"), b"\xff\xc0", 3, b"\0\0"),
    ),
    "jpeg with 60,000 segments": (
        {"decode_failed"},
        lambda: jpeg_with(segment(0xEF, b"") * 60_000),
    ),
    "jpeg without a picture": (
        {"decode_failed", "truncated"},
        lambda: b"\xff\xd8" + segment(0xE0, b"JFIF\0" + b"\1" * 9) + b"\xff\xd9",
    ),
    "tiff of 10,000 megapixels": (
        {"too_many_pixels"},
        lambda: _deflated_tiff(100_000, 100_000, 100_000),
    ),
    "tiff of a strip that is cut": (
        {"decode_failed", "truncated"},
        lambda: _deflated_tiff(3000, 3000, 3000),
    ),
    "tiff of a tile far beyond it": ({"decode_failed"}, lambda: _tiled_tiff(60_000)),
    "tiff of 65,535 tags": (
        {"decode_failed", "truncated"},
        lambda: tiff(dict.fromkeys(range(65_535), (3, 2**30, 8))),
    ),
    "tiff whose directory is its own": ({"decode_failed"}, lambda: tiff({254: (4, 1, 0)})),
    "tiff of nothing": ({"decode_failed", "truncated"}, lambda: b"II*\0\x08\0\0\0"),
    "bigtiff far away": (
        {"decode_failed", "truncated"},
        lambda: b"II+\0\x08\0\0\0" + b"\xff" * 8,
    ),
    "webp of 16,384 x 16,384": (
        {"too_many_pixels"},
        lambda: (
            b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xff\x3f\0\xff\x3f\0" + b"\0" * 40
        ),
    ),
    "webp that needs 1 GB": (
        {"too_many_pixels"},
        lambda: encode(Image.new("L", (9000, 5000)), "WEBP", lossless=True, method=0),
    ),
    "gif frame far beyond its screen": (
        {"too_many_pixels"},
        lambda: _sized(
            encode(picture(mode="L"), "GIF"), b"\x2c\0\0\0\0", 0, struct.pack("<HH", 65535, 65535)
        ),
    ),
    "gif with a comment of 60,000 blocks": (
        {"decode_failed"},
        lambda: _gif(b"!\xfe" + b"\1a" * 60_000 + b"\0"),
    ),
    "gif that hides 60,000 blocks": (
        {"decode_failed"},
        lambda: _gif(b"!\xff\x0bNETSCAPE2.0\0" + b"\1," * 60_000 + b"\0", image=b"," + b"\0" * 20),
    ),
    "gif of no frame": ({"decode_failed", "truncated"}, _gif),
    "bmp of 2,500 megapixels": ({"too_many_pixels"}, lambda: _bmp(50_000, 50_000, 0, b"")),
    "bmp of run lengths, large": ({"too_many_pixels"}, lambda: _bmp(9000, 5000, 1, b"\0\0" * 9)),
    "bmp of a height beyond sense": ({"too_many_pixels"}, lambda: _bmp(48, -(2**31), 0, b"")),
    "bmp of no width": ({"decode_failed", "truncated"}, lambda: _bmp(0, 9, 0, b"\0" * 99)),
    "avif of 256 megapixels": (
        {"too_many_pixels"},
        lambda: _sized(encode(picture(), "AVIF"), b"ispe", 4, struct.pack(">II", 16000, 16000)),
    ),
    "avif of a type and nothing": (
        {"decode_failed", "truncated"},
        lambda: b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    ),
    "mif1 that is no avif": (
        {"unsupported_format", "decode_failed"},
        lambda: b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b"\0" * 60,
    ),
    "heic": ({"unsupported_format"}, lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 60),
    "svg that reads a file": (
        {"unsupported_format"},
        lambda: (
            b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            b"<svg>&x;</svg>"
        ),
    ),
    "eps that runs": (
        {"unsupported_format"},
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) (r) file",
    ),
    "pdf with a jpeg in it": ({"not_an_image"}, lambda: b"%PDF-1.7\n" + encode(picture(), "JPEG")),
    "html": ({"not_an_image"}, lambda: HTML),
    "html that begins as a gif": (
        {"decode_failed", "truncated", "too_many_pixels"},
        lambda: b"GIF89a/*" + HTML + b"*/",
    ),
    "text that begins as a bmp": ({"too_many_pixels"}, lambda: b"BM" + HTML * 9),
    "sound that begins as a webp": (
        {"not_an_image"},
        lambda: b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 60,
    ),
    "zip with a jpeg in it": ({"not_an_image"}, lambda: _zip() + encode(picture(), "JPEG")),
    "video": ({"not_an_image"}, lambda: b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"),
    "nothing": ({"not_an_image"}, lambda: b""),
}

# What looks odd and must be scored.
SCORED: dict[str, Callable[[], bytes]] = {
    "avif that says it is smaller": lambda: _sized(
        encode(Image.new("L", (2000, 1500)), "AVIF", speed=10),
        b"ispe",
        4,
        struct.pack(">II", 64, 64),
    ),
    "gif with html behind it": lambda: encode(picture(mode="L"), "GIF") + HTML,
    "jpeg with a zip behind it": lambda: encode(picture(), "JPEG") + _zip(),
    "png with a script behind it": lambda: encode(picture(), "PNG") + b"<?php system('id'); ?>",
    "gif of 1,000 frames": lambda: _frames("GIF", 1000),
    "webp of 100 frames": lambda: _frames("WEBP", 100, method=0),
    "avif of 9 frames": lambda: _frames("AVIF", 9, speed=10),
    "tiff of 300 pages": lambda: _frames("TIFF", 300),
    "png that says it has 2 billion frames": lambda: png_with(
        chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    ),
    "png with pixels for 400 MB": lambda: _png_of_too_much(),
    "png of a palette of 1 bit": lambda: encode(picture(mode="1").convert("P"), "PNG", bits=1),
    "png of 16 bits": lambda: encode(picture(mode="I;16"), "PNG"),
    "jpeg of inks": lambda: encode(picture(mode="CMYK"), "JPEG"),
    "jpeg in scans": lambda: encode(picture(), "JPEG", progressive=True),
    "jpeg whose EXIF goes round": lambda: jpeg_with(segment(0xE1, _EXIF_LOOP)),
    "jpeg with 900 kB of profile": lambda: jpeg_with(
        b"".join(
            segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 15)) + b"\0" * 60_000) for n in range(1, 16)
        )
    ),
    "jpeg whose previews have tags without end": lambda: jpeg_with(
        segment(
            0xE2,
            b"MPF\0II*\0\x08\0\0\0\xff\x0f" + struct.pack("<HHII", 0xB002, 7, 60_000, 8) * 4095,
        )
    ),
    "webp with 900 kB of XMP": lambda: encode(picture(), "WEBP", xmp=b"<x>" * 300_000),
    "bmp of run lengths that jump": lambda: _bmp(48, 32, 1, b"\0\2\xff\xff" * 1000),
    "bmp from the top": lambda: _bmp(48, -32, 0, b"\x40" * 48 * 32),
    "tiff of a strip beyond it": lambda: _deflated_tiff(2000, 2000, 2**32 - 1),
}


def _png_of_too_much() -> bytes:
    rows = zlib.compress(b"\0" * 400_000_000, 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def other_kinds() -> Iterator[tuple[str, bytes]]:
    """Give a file of every other kind that Pillow writes, by name."""
    Image.init()
    for kind in sorted(set(Image.SAVE) - {*KINDS, "MPO", "DIB", "IM"}):
        for mode in ("RGB", "L", "1", "P", "RGBA"):
            try:
                payload = encode(picture(64, 64, mode), kind)
            except (OSError, ValueError, KeyError, RuntimeError):
                continue
            yield kind, payload
            break


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """Give damaged pictures of every kind: bytes changed, cut out, doubled, and headers swapped."""
    chance = random.Random(seed)
    whole = [encode(picture(), kind) for kind in KINDS]
    whole += [
        encode(picture(), "JPEG", progressive=True),
        encode(picture(mode="P"), "PNG"),
        encode(picture(mode="P"), "TIFF", compression="tiff_lzw"),
        encode(picture(), "TIFF", compression="jpeg"),
        encode(picture(), "WEBP", lossless=True),
        _frames("GIF", 3),
        _bmp(48, 32, 1, b"\x30\x07\0\0" * 32),
    ]
    for _ in range(count):
        payload = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 12)):
            # Most of what matters stands at the start.
            at = int(chance.random() ** 2 * len(payload))
            match chance.randrange(5):
                case 0:
                    payload[at] ^= 1 << chance.randrange(8)
                case 1:
                    payload[at : at + 4] = chance.choice(
                        (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff")
                    )
                case 2:
                    del payload[at : at + chance.randint(1, 16)]
                case 3:
                    payload[at:at] = payload[at : at + chance.randint(1, 64)]
                case _:
                    other = chance.choice(whole)
                    payload[at : at + 32] = other[at : at + 32]
            payload = payload or bytearray(b"\xff")
        yield bytes(payload)
