"""What is refused at the door: unfit URLs, files that are no pictures, work beyond what fits."""

from api.services import Services
from api.urls import source_problem
from worker.jobs.errors import OverQuota, QueueFull
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.api_keys import ANYONE
from worker.jobs.ledger.load import Load
from worker.jobs.settings import Settings

SNIFF_BYTES = 16
MAX_RETRY_AFTER_S = 300
RETRY_UNKNOWN_S = 30
FULL_SHARE = 0.8

_MAGIC = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\x00",  # TIFF, little and big endian, and BigTIFF
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
)


def looks_like_image(head: bytes) -> bool:
    """Whether the first 16 bytes are those of a format that workers decode."""
    if head.startswith(_MAGIC):
        return True
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    avif = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1", b"miaf")
    return webp or avif


def item_problem(spec: ItemSpec, payload: bytes | None, settings: Settings) -> str | None:
    """Say what is wrong with an item, or None; an upload taken in before comes without payload."""
    if payload is not None:
        return _upload_problem(payload, settings.max_item_bytes)
    return None if spec.url is None else source_problem(spec.url, settings.s3_fetch_buckets)


def in_line(problem: str, line: int | None) -> str:
    """Say where in the body a problem is, if it has lines, counted from 1."""
    return problem if line is None else f"line {line}: {problem}"


def _upload_problem(payload: bytes, max_bytes: int) -> str | None:
    """Say what is wrong with an uploaded file, or None, by its size and first bytes."""
    if not payload:
        return "the file is empty"
    if len(payload) > max_bytes:
        return f"the file has more than {max_bytes} bytes, which is the most a picture may have"
    if not looks_like_image(payload[:SNIFF_BYTES]):
        return "not a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF picture by its first bytes"
    return None


def check_room(services: Services, owner: str, count: int) -> None:
    """Push back while too much work waits already.

    Raises:
        OverQuota: `count` more items would be over the caller's quota.
        QueueFull: they would be over what all callers together may have waiting, or what Redis
            has room for.
    """
    load, settings = services.load, services.settings
    check_memory(load)
    waiting, backlog = load.backlogs(owner, "*")
    if owner != ANYONE and waiting + count > settings.quota_items:
        advice = "wait for some to be scored"
        if count > settings.quota_items:
            advice = f"send these {count} as several smaller jobs, one after the other"
        raise OverQuota(
            f"you have {waiting} items waiting and may have {settings.quota_items}: {advice}",
            _retry_after_s(load, waiting),
        )
    if backlog + count > settings.max_backlog_items:
        raise QueueFull(
            f"{backlog} items are waiting and at most {settings.max_backlog_items} may: try later",
            _retry_after_s(load, backlog),
        )


def check_memory(load: Load) -> None:
    """Push back while Redis has little memory left: what it has taken in will need some of it.

    Raises:
        QueueFull: more than four fifths of it are in use.
    """
    if (share := load.memory_share()) > FULL_SHARE:
        raise QueueFull(f"the memory of Redis is {share:.0%} full: try later", RETRY_UNKNOWN_S)


def _retry_after_s(load: Load, waiting: int) -> int:
    rate = load.rate_per_s()
    return max(1, min(MAX_RETRY_AFTER_S, round(waiting / rate))) if rate else RETRY_UNKNOWN_S
