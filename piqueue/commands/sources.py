"""The sources of a submission: tables and lists by their names, pictures by their first bytes."""

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from piqueue.commands.pictures import (
    Found,
    LeftOut,
    as_id,
    named,
    picture_problem,
    search,
    with_ids,
)
from piqueue.commands.tables import (
    SAVE_AS_CSV,
    Form,
    LineNumbers,
    Opened,
    excel_lines,
    json_lines,
    table_lines,
    url_lines,
)
from piqueue.commands.terminal import CommandFailed
from piqueue.types import Body

_PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zip")
_TABLES = {".csv": "csv", ".tsv": "csv", ".txt": "urls", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_NOT_TABLES = (".xls", ".xlsb", ".ods", ".numbers")


@dataclass(frozen=True)
class Table:
    """A CSV with a header row, its name for people, and the lines that its rows have there."""

    name: str
    rows: Body
    numbers: LineNumbers = field(default_factory=LineNumbers)


@dataclass(frozen=True)
class Lines:
    """Items as JSON, one a line, and the name of their file for people."""

    name: str
    items: Body


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


def find_source(names: Sequence[str], form: Form, output: Path | None = None) -> Source:
    """Find the source that `names` stand for.

    `form` is that of a table or a list of URLs. `output` is the file for the results, which may be
    in a folder of pictures.

    Raises:
        CommandFailed: there is no such source.
    """
    for name in names:
        if not name:
            raise CommandFailed("a name is empty: for the current folder, give .")
        if name.startswith(("http://", "https://")):
            raise CommandFailed(f"{name} is a URL: submit a .txt file of URLs, or - to type them")
        if name != "-" and not name.startswith("s3://") and not Path(name).exists():
            raise CommandFailed(f"{name}: not found: correct the path")
    kinds = [_kind(name) for name in names]
    if kinds == ["file"] and (problem := picture_problem(Path(names[0]))):
        raise CommandFailed(
            f"{names[0]}: {problem}, and its name is not that of a table or list: "
            "submit a .csv, .tsv, .xlsx, .ndjson, .jsonl or .txt file, pictures, folders or s3://"
        )
    if set(kinds) <= {"folder", "file"}:
        return _pictures([Path(name) for name in names], output)
    if len(names) > 1:
        table = next(name for name, kind in zip(names, kinds, strict=True) if kind != "file")
        raise CommandFailed(
            f"{table}: give one table, list or S3 folder at a time, or any number of pictures and "
            "folders"
        )
    form.check()
    [name], [kind] = names, kinds
    path = Path(name)

    def opened() -> BinaryIO:
        return path.open("rb")

    match kind:
        case "s3":
            return S3Folder.of(name)
        case "stdin":
            name = "standard input"
            spooled = _spooled(sys.stdin.buffer)
            return Lines(name, partial(url_lines, spooled, name, form.encoding))
        case "urls":
            return Lines(name, partial(url_lines, opened, name, form.encoding))
        case "ndjson":
            return Lines(name, partial(json_lines, opened, name, form.encoding))
    numbers = LineNumbers()
    if kind == "excel":
        return Table(name, partial(excel_lines, path, form, numbers), numbers)
    tabs = ".tsv" in (suffix.lower() for suffix in path.suffixes)
    return Table(name, partial(table_lines, opened, name, form, tabs, numbers), numbers)


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
    others = [(path, why) for path, why in found.others if not is_same(path, output)]
    if not found.pictures:
        where = ", ".join(map(str, paths[:3])) + ", …" * (len(paths) > 3)
        first = f": {others[0][0]} is {others[0][1]}" if others else ""
        count = f" ({len(others)} other files{first})" if others else ""
        if found.hidden_count:
            count += f", and {found.hidden_count} hidden files or folders are ignored"
        raise CommandFailed(f"{where}: no pictures there{count}: name other files or folders")
    if len(paths) == 1 and paths[0].is_dir():
        files = with_ids((path.relative_to(paths[0]), path) for path in found.pictures)
        others = [(path.relative_to(paths[0]), why) for path, why in others]
    else:
        files = named(found.pictures)
    left_out = tuple(LeftOut(as_id(path), why) for path, why in others)
    return Pictures(files, left_out, found.hidden_count)


def is_same(path: Path, output: Path | None) -> bool:
    """Whether a path is that of the file for the results, which may not exist yet."""
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
    if suffix in (".xlsx", ".xlsm"):
        return "excel"
    if suffix in _NOT_TABLES:
        raise CommandFailed(f"{name}: tables of this kind cannot be read: {SAVE_AS_CSV}")
    if suffix in _PACKED_SUFFIXES:
        suffix = path.with_suffix("").suffix.lower()
    kind = _TABLES.get(suffix, "file")
    return kind if kind == "file" or picture_problem(path) else "file"


def _spooled(stream: BinaryIO) -> Opened:
    """Copy a stream to disk, because a request may be sent again."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - deleted at exit
    shutil.copyfileobj(stream, copy)

    def rewound() -> AbstractContextManager[BinaryIO]:
        copy.seek(0)
        return nullcontext(copy)

    return rewound
