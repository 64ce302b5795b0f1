"""Items and their results as values, and the packed form in which Redis keeps them."""

import json
import re
import sys
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple, Self

from pydantic_core import from_json, to_json

# Half the time of zlib's default 6, for 3 % more bytes.
PACK_LEVEL = 3
# Scores keep this many decimals; engines differ in the fourth.
SCORE_DECIMALS = 5
# Longer score vectors are 16-bit integers: this many steps from 0 to 1.
FEW_SCORES = 32
SCORE_STEPS = 65535
# The lowest score whose 16-bit integer has a high byte of 2 or more.
HIGH_SCORE = 0x200 / SCORE_STEPS
_HIGH_BYTE = re.compile(rb"[^\x00\x01]")
# As long as a key in S3 may be.
MAX_ID_CHARS = 1024


class Stage(StrEnum):
    """The stage at which an item was rejected."""

    FETCH = "fetch"
    DECODE = "decode"
    INFER = "infer"


class RejectionCode(StrEnum):
    """Why an item has no scores: the closed set of codes in the API."""

    FETCH_DNS = "fetch_dns"
    FETCH_BLOCKED_ADDRESS = "fetch_blocked_address"
    FETCH_TIMEOUT = "fetch_timeout"
    FETCH_CONNECTION = "fetch_connection"
    FETCH_HTTP_STATUS = "fetch_http_status"
    FETCH_TOO_LARGE = "fetch_too_large"
    FETCH_REDIRECTS = "fetch_redirects"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_MANY_PIXELS = "too_many_pixels"
    TRUNCATED = "truncated"
    DECODE_FAILED = "decode_failed"
    MODEL_ERROR = "model_error"
    WORKER_LOST = "worker_lost"
    INTERNAL = "internal"


class ItemSpec(NamedTuple):
    """One picture as submitted: fetched from `url`, or uploaded under `filename`.

    `columns` are returned with the result. `parent_index` is the item's index in the parent job of
    a retry.
    """

    id: str
    url: str | None = None
    filename: str | None = None
    columns: dict[str, str] | None = None
    parent_index: int | None = None

    def to_row(self) -> list[Any]:
        """Write the compact JSON form kept in Redis."""
        row: list[Any] = list(self)
        while row[-1] is None:
            row.pop()
        return row


@dataclass(frozen=True)
class Rejection:
    """Why an item has no scores."""

    code: RejectionCode
    stage: Stage
    retryable: bool
    detail: str
    # The HTTP status of the host, if that is the reason.
    http_status: int | None = None


class ImageFacts(NamedTuple):
    """Facts about the bytes and, after decoding, the picture; sizes in pixels."""

    sha256: str
    byte_count: int
    format: str | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class Timings:
    """Milliseconds an item spent in each stage; `infer_ms` is its share of the batch."""

    fetch_ms: int = 0
    decode_ms: int = 0
    infer_ms: int = 0


class PackedFeatures(NamedTuple):
    """Features of a picture, as `model.artifact.features` packs them, and their variant."""

    variant: str
    content: bytes


@dataclass(frozen=True)
class ItemResult:
    """The outcome of one item: scores in label order or a rejection, never both."""

    scores: tuple[float, ...] | None = None
    rejection: Rejection | None = None
    image: ImageFacts | None = None
    timings: Timings = Timings()
    # Whether the scores come from the score cache.
    cached: bool = False
    # The variant of the model that gave the scores: `float` or `int8`.
    variant: str | None = None
    # Whether the scores come from the kept features of another job, so that nothing was fetched.
    rescored: bool = field(default=False, compare=False, repr=False)
    # Features by backbone, which only a job that keeps them stores, and not in Redis.
    features: Mapping[str, PackedFeatures] = field(default_factory=dict, compare=False, repr=False)
    # The difference hash of the picture, of 8 bytes, which is stored with its features.
    difference_hash: bytes = field(default=b"", compare=False, repr=False)
    # Of a long score vector that is read, the indexes of the scores of at least HIGH_SCORE.
    high: Sequence[int] | None = field(default=None, compare=False, repr=False)

    def to_row(self) -> list[Any]:
        """Write the compact JSON form kept in Redis."""
        rejection, timings = self.rejection, self.timings
        return [
            self.scores,
            rejection and list(astuple(rejection)),
            self.image,
            [timings.fetch_ms, timings.decode_ms, timings.infer_ms],
            int(self.cached),
            self.variant,
        ]

    @classmethod
    def from_row(cls, row: list[Any], high: Sequence[int] | None = None) -> Self:
        """Read what `to_row` wrote."""
        # Rows of earlier versions end without the variant.
        scores, rejection, image, timings, cached, *variant = row
        return cls(
            scores=None if scores is None else tuple(scores),
            rejection=rejection
            and Rejection(RejectionCode(rejection[0]), Stage(rejection[1]), *rejection[2:]),
            image=image and ImageFacts._make(image),
            timings=Timings(*timings),
            cached=bool(cached),
            variant=variant[0] if variant else None,
            high=high,
        )


def pack(rows: Sequence[Any]) -> bytes:
    """Compress JSON rows for Redis."""
    try:
        text = to_json(rows)
    except ValueError:  # a lone surrogate, as in the name of a host that is not UTF-8
        text = json.dumps(rows, separators=(",", ":")).encode()
    return zlib.compress(text, PACK_LEVEL)


def unpack(packed: bytes) -> list[Any]:
    """Read what `pack` wrote."""
    return _read_json(zlib.decompress(packed))


def _read_json(text: bytes) -> list[Any]:
    rows: list[Any]
    try:
        rows = from_json(text)
    except ValueError:
        rows = json.loads(text)
    return rows


def pack_results(attempt: int, results: Sequence[ItemResult]) -> bytes:
    """Compress the results of one chunk.

    Long score vectors follow the JSON as 16-bit steps, all high bytes before all low bytes: 800
    bytes for 1,000 softmax scores, half of what JSON or float16 take.
    """
    rows, steps = [], array("H")
    for result in results:
        row = result.to_row()
        if result.scores is not None and len(result.scores) > FEW_SCORES:
            row[0] = len(result.scores)
            steps.extend(round(score * SCORE_STEPS) for score in result.scores)
        rows.append(row)
    packed = pack([attempt, rows])
    if steps:
        if sys.byteorder == "big":
            steps.byteswap()
        low_first = steps.tobytes()
        packed += zlib.compress(low_first[1::2] + low_first[::2], PACK_LEVEL)
    return packed


def unpack_results(packed: bytes) -> tuple[int, list[ItemResult]]:
    """Read what `pack_results` wrote: the attempt and the results."""
    attempt, rows, high = _unpack_rows(packed)
    return attempt, [ItemResult.from_row(row, high.get(at)) for at, row in enumerate(rows)]


def unpack_pictures(packed: bytes) -> Iterator[tuple[ImageFacts | None, ItemResult | None]]:
    """Read the facts of each picture, and its result if it has no scores, in half the time."""
    _, rows, _ = _unpack_rows(packed)
    for row in rows:
        image = row[2]
        yield image and ImageFacts._make(image), ItemResult.from_row(row) if row[1] else None


def _unpack_rows(packed: bytes) -> tuple[int, list[list[Any]], dict[int, list[int]]]:
    """Give the attempt, the rows, and `ItemResult.high` by the position of a row."""
    high: dict[int, list[int]] = {}
    stream = zlib.decompressobj()
    attempt, rows = _read_json(stream.decompress(packed))
    if stream.unused_data:
        planes = zlib.decompress(stream.unused_data)
        low_first = bytearray(len(planes))
        low_first[1::2], low_first[::2] = planes[: len(planes) // 2], planes[len(planes) // 2 :]
        steps = array("H", bytes(low_first))
        if sys.byteorder == "big":
            steps.byteswap()
        start, scores = 0, _scores_by_step()
        for at, row in enumerate(rows):
            if isinstance(row[0], int):
                end = start + row[0]
                row[0] = itemgetter(*steps[start:end])(scores)
                high[at] = [one.start() for one in _HIGH_BYTE.finditer(planes[start:end])]
                start = end
    return attempt, rows, high


@cache
def _scores_by_step() -> list[float]:
    """The score of each step: to look a thousand of them up takes a tenth of rounding them."""
    return [round(step / SCORE_STEPS, SCORE_DECIMALS) for step in range(SCORE_STEPS + 1)]


def pack_specs(specs: Sequence[ItemSpec]) -> bytes:
    """Compress the items of one chunk."""
    return pack([spec.to_row() for spec in specs])


def unpack_specs(packed: bytes) -> list[ItemSpec]:
    """Read what `pack_specs` wrote."""
    return [ItemSpec(*row) for row in unpack(packed)]
