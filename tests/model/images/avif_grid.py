"""Writes AVIF pictures of many tiles, which Pillow cannot write."""

import struct
from collections.abc import Iterator

_PRIMARY = 1


def avif_grid(tile: bytes, side: int, columns: int, rows: int) -> bytes:
    """A grid of the same tile, an AVIF of `side` x `side` pixels as Pillow writes it."""
    count, width, height = columns * rows, columns * side, rows * side
    ids = range(_PRIMARY + 1, _PRIMARY + 1 + count)
    top = dict(_boxes(tile))
    meta = dict(_boxes(top[b"meta"][4:]))
    properties = dict(_boxes(meta[b"iprp"]))[b"ipco"]
    numbers = {name: number for number, (name, _) in enumerate(_boxes(properties), start=1)}
    layout = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    pixels = top[b"mdat"]

    infos = [(_PRIMARY, b"grid"), *((id_, b"av01") for id_ in ids)]
    entries = [_box(b"infe", struct.pack(">HH4sB", id_, 0, kind, 0), 2) for id_, kind in infos]
    size = _box(b"ispe", struct.pack(">II", width, height), 0)
    used = bytes((0x80 | numbers[b"av1C"], numbers[b"ispe"], numbers[b"pixi"]))
    associations = [(_PRIMARY, bytes((len(numbers) + 1, numbers[b"pixi"])))]
    associations += [(id_, used) for id_ in ids]

    def head(at: int) -> bytes:
        places = [(_PRIMARY, at, len(layout))]
        places += [(id_, at + len(layout), len(pixels)) for id_ in ids]
        parts = (
            _box(b"hdlr", meta[b"hdlr"]),
            _box(b"pitm", struct.pack(">H", _PRIMARY), 0),
            _box(
                b"iloc", b"\x44\0" + _listed(">HHHHII", [(i, 0, 0, 1, *at) for i, *at in places]), 1
            ),
            _box(b"iinf", struct.pack(">H", len(entries)) + b"".join(entries), 0),
            _box(b"iref", _box(b"dimg", struct.pack(f">HH{count}H", _PRIMARY, count, *ids)), 0),
            _box(
                b"iprp", _box(b"ipco", properties + size) + _box(b"ipma", _packed(associations), 0)
            ),
        )
        return _box(b"ftyp", top[b"ftyp"]) + _box(b"meta", b"".join(parts), 0)

    return head(len(head(0)) + 8) + _box(b"mdat", layout + pixels)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        yield name, content[at + 8 : at + length]
        at += length


def _box(name: bytes, content: bytes, version: int | None = None) -> bytes:
    if version is not None:
        content = struct.pack(">I", version << 24) + content
    return struct.pack(">I4s", 8 + len(content), name) + content


def _listed(row: str, rows: list[tuple[int, ...]]) -> bytes:
    return struct.pack(">H", len(rows)) + b"".join(struct.pack(row, *values) for values in rows)


def _packed(associations: list[tuple[int, bytes]]) -> bytes:
    rows = [struct.pack(">HB", id_, len(used)) + used for id_, used in associations]
    return struct.pack(">I", len(rows)) + b"".join(rows)
