"""Finds the pictures of folders and file names, recognised by their first bytes."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed

# Where only names are known: in S3, and in the results of a job.
PICTURE_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"),
        *("avif", "heic", "heif", "hif", "jxl", "jp2"),
    )
)
LISTED = 100
NOT_A_PICTURE = "not a picture by its first bytes"
_HEAD_BYTES = 32
# Also formats that a service may be unable to decode: its refusal says so.
_SIGNATURES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM.{4}\0\0\0\0|II[*+]\0|MM\0[*+]"
    rb"|....ftyp(avi[fs]|hei|hev|mif1|msf1|mia|crx)"
    rb"|\0\0\0\x0c(jP  |JXL )|\xff\x4f\xff\x51|\xff\x0a",
    re.DOTALL,
)
# Hidden files of Windows; those of other systems begin with a dot.
_HIDDEN = frozenset(("thumbs.db", "desktop.ini"))


@dataclass(frozen=True)
class LeftOut:
    """A file that is not part of the job, and why."""

    id: str
    detail: str


@dataclass
class Found:
    """The pictures of a folder and its subfolders, the other files, and the count of hidden ones.

    A hidden folder counts once.
    """

    pictures: list[Path] = field(default_factory=list)
    others: list[tuple[Path, str]] = field(default_factory=list)
    hidden_count: int = 0


def search(folder: Path) -> Found:
    """Search a folder and its subfolders, in the order of the paths."""
    found = Found()

    def unreadable(error: OSError) -> None:
        found.others.append((Path(error.filename), f"cannot be read: {error.strerror}"))

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        for name in (*folders, *files):
            found.hidden_count += is_hidden(name)
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in folders:
            if Path(parent, name).is_symlink():
                reason = "a link to a folder: name that folder too"
                found.others.append((Path(parent, name), reason))
        for name in files:
            path = Path(parent, name)
            if is_hidden(name):
                continue
            if (problem := picture_problem(path)) is None:
                found.pictures.append(path)
            else:
                found.others.append((path, problem))
    found.pictures.sort()
    found.others.sort()
    return found


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and its subfolders, sorted, without hidden ones.

    Files that are named as pictures but are none, and what cannot be read, are listed on standard
    error.
    """
    found = search(folder)
    odd = [
        LeftOut(as_id(path), why)
        for path, why in found.others
        if path.suffix.lower() in PICTURE_SUFFIXES or why != NOT_A_PICTURE
    ]
    if odd:
        tell("\n".join([f"{folder}: left out:", *listed(odd, len(odd))]))
    return found.pictures


def picture_problem(path: Path) -> str | None:
    """Why a file is not a picture by its first bytes; None if it is one."""
    try:
        if not path.is_file():
            return "not a regular file" if path.exists() else "a link to a file that is missing"
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not head:
        return "the file is empty"
    return None if _SIGNATURES.match(head) else NOT_A_PICTURE


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden."""
    return name.startswith(".") or name.lower() in _HIDDEN


def may_be_picture(path: PurePath) -> bool:
    """Whether a name has the suffix of a picture, or no suffix."""
    return path.suffix.lower() in PICTURE_SUFFIXES or not path.suffix


def named(pictures: Iterable[Path]) -> dict[str, Path]:
    """The files by name, or by path where two have the same name."""
    pictures = list(pictures)
    count = Counter(path.name for path in pictures)
    return with_ids((path.name if count[path.name] == 1 else path, path) for path in pictures)


def with_ids(files: Iterable[tuple[Path | str, Path]]) -> dict[str, Path]:
    """The files by the ids that their names become.

    Raises:
        CommandFailed: the names of two files become the same id.
    """
    found: dict[str, Path] = {}
    for name, path in files:
        if found.setdefault(as_id(name), path) != path:
            raise CommandFailed(f"two files would have the id {as_id(name)!r}: rename one of them")
    return found


def as_id(path: Path | str) -> str:
    r"""A path as valid UTF-8 with forward slashes; other bytes become escapes such as \xe9."""
    text = path.as_posix() if isinstance(path, Path) else path
    return os.fsencode(text).decode(errors="backslashreplace")


def listed(files: Sequence[LeftOut], count: int) -> Iterator[str]:
    """One line for each of the first of `count` files that are left out, and one for the others."""
    for one in files[:LISTED]:
        yield f"  {one.id}: {one.detail}"
    if count > LISTED:
        yield f"  and {count - LISTED} more"
