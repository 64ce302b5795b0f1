"""Small ICC colour profiles, made by their specification (ICC.1:2001-04)."""

import struct

# XYZ of the primaries, adapted to D50.
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
_D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(primaries: tuple[tuple[float, ...], ...], gamma: float = 2.2) -> bytes:
    """Give a profile of a display with these primaries and one gamma."""
    curve = b"curv" + struct.pack(">4xIH", 1, round(gamma * 256))
    tags = {b"wtpt": _xyz(_D50)} | {
        name + kind: data
        for name, primary in zip((b"r", b"g", b"b"), primaries, strict=True)
        for kind, data in ((b"XYZ", _xyz(primary)), (b"TRC", curve))
    }
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def cmyk_profile() -> bytes:
    """Give a profile of four inks that are lighter than those that Pillow assumes."""
    corners = b"".join(
        bytes((255 - 38 * (c + m + y + k), 128 + 40 * (m - c), 128 + 40 * (y - (c + m) // 2)))
        for c in (0, 1)
        for m in (0, 1)
        for y in (0, 1)
        for k in (0, 1)
    )
    identity = struct.pack(">9i", *(65536 if at % 4 == 0 else 0 for at in range(9)))
    ramp = bytes(range(256))
    table = b"mft1" + struct.pack(">4xBBBx", 4, 3, 2) + identity + 4 * ramp + corners + 3 * ramp
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table, b"wtpt": _xyz(_D50)})


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + struct.pack(">4x3i", *(round(value * 65536) for value in values))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"desc" + struct.pack(">4xI5s78x", 5, b"test\0")
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", **tags}
    start, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12x4s4s20xI3i48x",
        start + len(body), b"lcms", 0x02400000, kind, space, connection, b"acsp", b"APPL", 0,
        *(round(value * 65536) for value in _D50),
    )  # fmt: skip
    return head + table + body
