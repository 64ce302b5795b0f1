"""What is refused before anything is stored: invalid URLs and files, and more work than fits."""

from api.services import Services
from api.urls import source_problem
from worker.jobs.errors import OverQuota, QueueFull
from worker.jobs.items import MAX_ID_CHARS, ItemSpec
from worker.jobs.ledger.api_keys import ANYONE
from worker.jobs.ledger.load import FULL_SHARE, Load
from worker.jobs.settings import Settings

SNIFF_BYTES = 16
SHOWN_CHARS = 60
MAX_RETRY_AFTER_S = 300
# The names and cells of one item: a page has up to a thousand items.
MAX_COLUMNS_CHARS = 16_384
RETRY_UNKNOWN_S = 30

_MAGIC = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"\0\0\0\x0cjP  ",  # JPEG 2000, in a file and as a codestream
    b"\xff\x4f\xff\x51",
    b"II*\x00",  # TIFF, little and big endian, and BigTIFF
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
)
# Of AVIF and HEIC: as in model.images.signatures, which this package does not import.
_BRANDS = (b"avif", b"avis", b"hei", b"hev", b"mif1", b"msf1", b"miaf")


def looks_like_image(head: bytes) -> bool:
    """Whether the first 16 bytes are those of a format that workers decode."""
    if head.startswith(_MAGIC):
        return True
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or (head[4:8] == b"ftyp" and head[8:12].startswith(_BRANDS))


def id_problem(spec: ItemSpec) -> str | None:
    """Return what is wrong with the id of an item, or None."""
    if len(spec.id) > MAX_ID_CHARS:
        return f"the id has {len(spec.id)} characters, and the limit is {MAX_ID_CHARS}: shorten it"
    return None


def columns_problem(spec: ItemSpec) -> str | None:
    """Return what is wrong with the columns of an item, or None."""
    columns = spec.columns or {}
    count = sum(len(text) for pair in columns.items() for text in pair)
    if count > MAX_COLUMNS_CHARS:
        longest = max(columns, key=lambda name: len(columns[name]))
        return (
            f"its columns have {count} characters, and the limit is {MAX_COLUMNS_CHARS}: leave "
            f"some out, or shorten the longest, {longest[:SHOWN_CHARS]!r}"
        )
    return None


def item_problem(spec: ItemSpec, payload: bytes | None, settings: Settings) -> str | None:
    """Return what is wrong with the URL or the file of an item, or None.

    An upload is checked by its size and first bytes; one that a draft has already stored comes
    without payload and is not checked again.
    """
    if payload is None:
        return None if spec.url is None else source_problem(spec.url, settings.s3_fetch_buckets)
    if not payload:
        return "the file is empty: send the picture again"
    if len(payload) > settings.max_item_bytes:
        return (
            f"the file is larger than {settings.max_item_bytes} bytes, the limit for a picture: "
            "make the picture smaller"
        )
    if not looks_like_image(payload[:SNIFF_BYTES]):
        return (
            "not a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC or JPEG 2000 picture by its first "
            "bytes: send one of these"
        )
    return None


def check_capacity(services: Services, owner: str, count: int) -> None:
    """Refuse `count` more items while too much work is waiting.

    Raises:
        OverQuota: the caller would exceed its quota.
        QueueFull: all callers together would exceed the backlog limit, or Redis is nearly full.
    """
    load, settings = services.load, services.settings
    check_memory(load)
    waiting, backlog = load.backlogs(owner, "*")
    if owner != ANYONE and waiting + count > settings.quota_items:
        advice = "wait until some are scored"
        if count > settings.quota_items:
            advice = f"send these {count} as several smaller jobs, one after the other"
        raise OverQuota(
            f"you have {waiting} items waiting, and your quota is {settings.quota_items}: {advice}",
            _retry_after_s(load, waiting),
        )
    if backlog + count > settings.max_backlog_items:
        raise QueueFull(
            f"{backlog} items of all callers are waiting, and the limit is "
            f"{settings.max_backlog_items}: try again later",
            _retry_after_s(load, backlog),
        )


def check_room(services: Services) -> None:
    """Refuse an upload while Redis, or the disk for uploads, is nearly full.

    Raises:
        QueueFull: there is no room for it.
    """
    check_memory(services.load)
    if services.blobs.room_bytes() == 0:
        raise QueueFull(
            "the disk for uploaded pictures is full but for the space that "
            "PIQUEUE_STORAGE_RESERVE_BYTES keeps free: try again later",
            RETRY_UNKNOWN_S,
        )


def upload_limit_bytes(services: Services) -> int:
    """How much a caller may store: its quota, or if there are several keys, what is left."""
    quota_bytes, room_bytes = services.settings.quota_upload_bytes, None
    if services.keys.count > 1:
        room_bytes = services.blobs.room_bytes()
    return quota_bytes if room_bytes is None else min(quota_bytes, room_bytes)


def check_upload_bytes(services: Services, owner: str, upload_bytes: int) -> None:
    """Refuse uploads that would make all stored uploads of a caller too large. Raises OverQuota."""
    stored, most = services.load.upload_bytes(owner), upload_limit_bytes(services)
    if stored + upload_bytes > most:
        raise OverQuota(
            f"Piqueue stores {stored} bytes of your pictures, and the limit is {most} now: wait "
            "until some are scored, or delete drafts and jobs with failed pictures, thumbnails or "
            "features",
            RETRY_UNKNOWN_S,
        )


def check_memory(load: Load) -> None:
    """Refuse new work while Redis is nearly full: the work it has will need memory for results.

    Raises:
        QueueFull: more than four fifths of the memory are in use.
    """
    if (share := load.memory_share()) > FULL_SHARE:
        raise QueueFull(
            f"the memory of Redis is {share:.0%} full: try again later", RETRY_UNKNOWN_S
        )


def _retry_after_s(load: Load, waiting: int) -> int:
    rate = load.rate().items
    return max(1, min(MAX_RETRY_AFTER_S, round(waiting / rate))) if rate else RETRY_UNKNOWN_S
