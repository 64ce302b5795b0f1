"""What is refused at the door: unfit URLs, files that are no pictures, work beyond what fits."""

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from worker.jobs.errors import ItemProblem, ItemsRefused, QueueFull
from worker.jobs.record import ItemSpec
from worker.jobs.settings import Settings
from worker.jobs.store import JobStore

MAX_URL_CHARS = 4096
SNIFF_BYTES = 16
RETRY_FULL_S = 30

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


def url_problem(url: str) -> str | None:
    """Say what is wrong with a URL, or None; nothing is looked up or dialled."""
    if len(url) > MAX_URL_CHARS:
        return f"the URL is longer than {MAX_URL_CHARS} characters"
    if any(ord(char) <= 32 or ord(char) == 127 for char in url):
        return "the URL has spaces or control characters: percent-encode them"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"not a URL: {error}"
    if parts.scheme not in ("http", "https"):
        return "the URL must begin with http:// or https://"
    if not parts.hostname:
        return "the URL names no host"
    if parts.username is not None or parts.password is not None:
        return "the URL holds a user name or password: leave them out"
    if port == 0:
        return "port 0 cannot be connected to"
    return None


def check_items(specs: Sequence[ItemSpec], problems: Iterable[ItemProblem] = ()) -> None:
    """Refuse the submission if an item is unfit, or two have the same id.

    Raises:
        ItemsRefused: with every unfit item, those of `problems` included.
    """
    found = list(problems)
    seen: dict[str, int] = {}
    for index, spec in enumerate(specs):
        first = seen.setdefault(spec.id, index)
        if first != index:
            detail = f"item {first} has the id {spec.id!r} too: ids must differ"
            found.append(ItemProblem(index, spec.id, detail))
        if spec.url is not None and (detail_or_none := url_problem(spec.url)):
            found.append(ItemProblem(index, spec.id, detail_or_none))
    if found:
        raise ItemsRefused(sorted(found, key=lambda problem: problem.index))


def check_room(store: JobStore, settings: Settings, count: int) -> None:
    """Push back while too much work waits already.

    Raises:
        QueueFull: `count` more items would be over the limit.
    """
    backlog = store.backlog()
    if backlog + count > settings.max_backlog_items:
        raise QueueFull(
            f"{backlog} items are waiting and at most {settings.max_backlog_items} may: try later",
            RETRY_FULL_S,
        )
