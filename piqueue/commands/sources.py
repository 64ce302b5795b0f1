"""The sources of a submission: tables and lists by their names, pictures by their first bytes."""

import codecs
import csv
import importlib.util
import json
import lzma
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from piqueue.commands.pictures import (
    Found,
    LeftOut,
    as_id,
    named,
    picture_problem,
    search,
)
from piqueue.commands.terminal import CommandFailed
from piqueue.types import Body

_PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zip")
# Raised when a table is read that is damaged or not a table.
_UNREADABLE = (
    *(ValueError, OSError, EOFError, csv.Error),
    *(lzma.LZMAError, zipfile.BadZipFile, zlib.error),
)
_UTF8 = ("utf-8", "utf-8-sig", "ascii")
_CHUNK_ROWS = 1000
_LINES_AT_ONCE = 1000


@dataclass(frozen=True)
class Table:
    """A CSV with a header row."""

    rows: Path | Body


@dataclass(frozen=True)
class Lines:
    """Items as JSON, one a line."""

    items: Path | Body


@dataclass(frozen=True)
class Pictures:
    """Files by item id, the other files that were found, and the count of hidden ones."""

    files: Mapping[str, Path]
    left_out: tuple[LeftOut, ...] = ()
    hidden_count: int = 0


@dataclass(frozen=True)
class S3Folder:
    """The objects of `bucket` whose keys begin with `prefix`, which is empty or ends with "/"."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Parse `s3://bucket/prefix`.

        Raises:
            CommandFailed: the URL has no bucket.
        """
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise CommandFailed(f"{url}: give s3://bucket or s3://bucket/prefix")
        return cls(bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


Source = Table | Lines | Pictures | S3Folder
Opened = Callable[[], AbstractContextManager[BinaryIO]]


def find_source(
    names: Sequence[str], encoding: str, separator: str | None, output: Path | None = None
) -> Source:
    """Find the source that `names` stand for.

    `encoding` and `separator` are those of a table or a list of URLs. `output` is the file for the
    results, which may be in a folder of pictures.

    Raises:
        CommandFailed: there is no such source.
    """
    for name in names:
        if name != "-" and not name.startswith("s3://") and not Path(name).exists():
            raise CommandFailed(f"{name}: not found")
    kinds = [_kind(name) for name in names]
    if kinds == ["file"] and (problem := picture_problem(Path(names[0]))):
        raise CommandFailed(
            f"{names[0]}: {problem}, nor the name of a table or list: "
            "submit a .csv, .tsv, .ndjson, .jsonl or .txt file, pictures, folders or s3://"
        )
    if set(kinds) <= {"folder", "file"}:
        return _pictures([Path(name) for name in names], output)
    if len(names) > 1:
        table = next(name for name, kind in zip(names, kinds, strict=True) if kind != "file")
        raise CommandFailed(
            f"{table}: give one table, list or S3 folder at a time, or any number of pictures and "
            "folders"
        )
    try:
        codec = codecs.lookup(encoding).name
    except LookupError:
        raise CommandFailed(f"--encoding {encoding}: there is no such encoding") from None
    path = Path(names[0])
    match kinds[0]:
        case "s3":
            return S3Folder.of(names[0])
        case "stdin":
            return Lines(_url_items(_spooled(sys.stdin.buffer), "standard input", codec))
        case "urls":
            return Lines(_url_items(lambda: path.open("rb"), names[0], codec))
        case "ndjson":
            return Lines(path)
        case "csv" if path.suffix.lower() == ".csv" and separator in (None, ",") and codec in _UTF8:
            return Table(path)
        case _:
            return Table(_plain_csv(path, codec, separator))


def _pictures(paths: Sequence[Path], output: Path | None) -> Pictures:
    """The pictures of a single folder by relative path, others by name."""
    found = Found()
    for path in paths:
        if path.is_dir():
            inside = search(path)
            found.pictures += inside.pictures
            found.others += inside.others
            found.hidden_count += inside.hidden_count
        elif problem := picture_problem(path):
            found.others.append((path, problem))
        else:
            found.pictures.append(path)
    others = [(path, why) for path, why in found.others if not _is_same(path, output)]
    if not found.pictures:
        where = ", ".join(map(str, paths[:3])) + ", …" * (len(paths) > 3)
        first = f": {others[0][0]} is {others[0][1]}" if others else ""
        count = f" ({len(others)} other files{first})" if others else ""
        raise CommandFailed(f"{where}: no pictures there{count}")
    if len(paths) == 1 and paths[0].is_dir():
        files = {as_id(path.relative_to(paths[0])): path for path in found.pictures}
        others = [(path.relative_to(paths[0]), why) for path, why in others]
    else:
        files = named(found.pictures)
    left_out = tuple(LeftOut(as_id(path), why) for path, why in others)
    return Pictures(files, left_out, found.hidden_count)


def _is_same(path: Path, output: Path | None) -> bool:
    return output is not None and output.exists() and path.exists() and path.samefile(output)


def _kind(name: str) -> str:
    path = Path(name)
    suffix = path.suffix.lower()
    if name == "-":
        return "stdin"
    if name.startswith("s3://"):
        return "s3"
    if path.is_dir():
        return "folder"
    if suffix in (".ndjson", ".jsonl"):
        return "ndjson"
    if suffix == ".txt":
        return "urls"
    if suffix in _PACKED_SUFFIXES:
        suffix = path.with_suffix("").suffix.lower()
    return "csv" if suffix in (".csv", ".tsv") else "file"


def _spooled(stream: BinaryIO) -> Opened:
    """Copy a stream to disk, because a request may be sent again."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - deleted at exit
    shutil.copyfileobj(stream, copy)

    def rewound() -> AbstractContextManager[BinaryIO]:
        copy.seek(0)
        return nullcontext(copy)

    return rewound


def _url_items(opened: Opened, name: str, codec: str) -> Body:
    """URLs, one a line, as items on the same lines; a comment (#) becomes an empty line."""

    def items() -> Iterator[bytes]:
        read = codecs.getreader("utf-8-sig" if codec == "utf-8" else codec)
        batch: list[str] = []
        with opened() as file:
            try:
                for line in read(file):
                    url = line.strip()
                    has_url = url and not url.startswith("#")
                    batch.append(json.dumps({"url": url}) if has_url else "")
                    if len(batch) == _LINES_AT_ONCE:
                        yield ("\n".join(batch) + "\n").encode()
                        batch.clear()
            except UnicodeError as error:
                raise CommandFailed(f"{name} is not {codec} ({error}): give --encoding") from None
        yield "\n".join(batch).encode()

    return items


def _plain_csv(path: Path, codec: str, separator: str | None) -> Body:
    """Convert a table of any encoding, compression and separator to plain CSV, in chunks."""
    if importlib.util.find_spec("pandas") is None:
        raise CommandFailed(
            f"{path}: anything but plain UTF-8 CSV needs pandas: "
            "pip install 'piqueue[tables]', or convert the file"
        )
    tabs = ".tsv" in (suffix.lower() for suffix in path.suffixes)

    def rows() -> Iterator[bytes]:
        import pandas

        read_to = 0
        try:
            with pandas.read_csv(
                path,
                sep=separator or ("\t" if tabs else ","),
                encoding=codec,
                header=None,  # or pandas renames columns and makes one the index
                dtype=str,
                na_filter=False,
                chunksize=_CHUNK_ROWS,
                engine="python",  # the other one joins rows between two stray quotation marks
            ) as chunks:
                for chunk in chunks:
                    read_to += len(chunk)
                    yield chunk.to_csv(index=False, header=False).encode()
        except UnicodeError as error:
            raise CommandFailed(f"{path} is not {codec} ({error}): give --encoding") from None
        except _UNREADABLE as error:
            reason = str(error).strip()
            # pandas passes some errors of the csv module on, and words others as its own.
            if isinstance(error, csv.Error) or isinstance(error.__context__, csv.Error):
                reason = (
                    f"one of the {_CHUNK_ROWS:,} rows after row {read_to:,} (the header is row 1) "
                    f"is malformed ({reason}): a cell that holds a quotation mark must be quoted "
                    "as a whole, with that mark written twice"
                )
            raise CommandFailed(f"{path} cannot be read as a table: {reason}") from None

    return rows
