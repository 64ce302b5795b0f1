"""Reads tables and lists of URLs, as spreadsheets and databases write them, as request bodies."""

import bz2
import codecs
import csv
import gzip
import importlib.util
import io
import json
import lzma
import re
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed

Opened = Callable[[], AbstractContextManager[BinaryIO]]

_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The first letters of UTF-16 without a byte order mark, which are ASCII.
_UNMARKED = (
    (re.compile(rb"[^\0]\0[^\0]\0"), "utf-16-le"),
    (re.compile(rb"\0[^\0]\0[^\0]"), "utf-16-be"),
)
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"
_SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}
# The first line of a table that Excel is to read, such as sep=;
_SEP_LINE = re.compile(r'"?sep=(.)"?,*\s*', re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_CELLS = re.compile("[\t,;|]")
_LINE_BREAK = re.compile(r"\r\n?|\n")
# How `surrogateescape` writes bytes that are not of the encoding.
_BAD_BYTE = re.compile("[\udc80-\udcff]")
_DAMAGED = (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error)
_AT_ONCE = 1000
_PACKED_BYTES = 1 << 16
_SHOWN_CHARS = 40
SAVE_AS_CSV = "save it as “CSV UTF-8” and submit that file"


@dataclass(frozen=True)
class Form:
    """How a table or list is written; None for what its name and first bytes say.

    Without `quotes`, quotation marks are ordinary characters and no cell has a line break, as
    databases write tab-separated tables.
    """

    encoding: str | None = None
    separator: str | None = None
    quotes: bool = True
    url_column: str = "url"

    def check(self) -> None:
        """Raise CommandFailed if the encoding or the separator is none."""
        try:
            "".encode("utf-8" if self.encoding is None else self.encoding)
        except (LookupError, UnicodeError):
            raise CommandFailed(
                f"--encoding {self.encoding!r}: there is no such encoding: give one such as cp1252"
            ) from None
        separator = "," if self.separator is None else self.separator
        if len(separator) != 1 or separator in '"\r\n':
            raise CommandFailed(
                f"--sep {self.separator!r}: give one character, such as --sep ';' or --sep $'\\t'"
            )


@dataclass
class LineNumbers:
    """The lines of a file by those of the request: each cell with line breaks may shift them."""

    _shifts: list[tuple[int, int]] = field(default_factory=list)

    def reset(self) -> None:
        """Forget all lines: the request is sent again."""
        self._shifts.clear()

    def add(self, sent: int, own: int) -> None:
        """Record that the file has at line `own` what the request has at line `sent`."""
        if own - sent != (self._shifts[-1][1] if self._shifts else 0):
            self._shifts.append((sent, own - sent))

    def restored(self, text: str) -> str:
        """Replace the lines of the request, with which a text begins, by those of the file."""
        return re.sub(
            r"^line \d+( and line \d+)?",
            lambda lines: re.sub(r"\d+", lambda line: str(self._own(int(line[0]))), lines[0]),
            text,
        )

    def _own(self, sent: int) -> int:
        at = bisect_right(self._shifts, (sent, 1 << 60))
        return sent + (self._shifts[at - 1][1] if at else 0)


def table_lines(
    opened: Opened, name: str, form: Form, tabs: bool, numbers: LineNumbers
) -> Iterator[bytes]:
    """Convert a text table to plain CSV, each row at the line that it has in the file.

    Raises:
        CommandFailed: it cannot be read as a table; the message names the line.
    """
    lines = _lines(opened, name, form.encoding, newline="" if form.quotes else "\n")
    separator = "\t" if tabs else ","
    first = next(lines, "")
    if declared := _SEP_LINE.fullmatch(first):
        separator, first = declared[1], "\r\n"
    separator = form.separator or separator
    lines = chain([first], lines)
    if form.quotes:
        rows = _quoted_rows(lines, separator, name, form.url_column)
    else:
        rows = ((at, line.rstrip("\r\n").split(separator)) for at, line in enumerate(lines, 1))
    yield from _plain(_checked(rows, separator, name, form), numbers)


def excel_lines(path: Path, form: Form, numbers: LineNumbers) -> Iterator[bytes]:
    """Convert the first visible sheet of an Excel workbook to plain CSV.

    Raises:
        CommandFailed: it cannot be read, or a library for it is missing.
    """
    for library in ("pandas", "openpyxl"):
        if importlib.util.find_spec(library) is None:
            raise CommandFailed(
                f"{path}: reading Excel files needs {library}: pip install 'piqueue[tables]', "
                f"or {SAVE_AS_CSV}"
            )
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(_OLD_EXCEL):
        raise CommandFailed(
            f"{path} is a workbook of an old Excel, or one with a password: {SAVE_AS_CSV}"
        )
    if not head.startswith(b"PK\x03\x04"):
        raise CommandFailed(f"{path} is not an Excel workbook: name it .csv if it is text")
    import pandas

    try:
        with pandas.ExcelFile(path, engine="openpyxl") as book:
            sheets = book.book.worksheets  # not those that are charts
            visible = [one.title for one in sheets if one.sheet_state == "visible"]
            if not visible:
                raise CommandFailed(f"{path} has no visible sheet with cells: {SAVE_AS_CSV}")
            sheet = visible[0]
            frame = pandas.read_excel(book, sheet, header=None, dtype=str, na_filter=False)
    except (*_DAMAGED, ValueError, LookupError, TypeError, SyntaxError, AttributeError) as error:
        raise CommandFailed(f"{path} cannot be read ({error}): {SAVE_AS_CSV}") from None
    name = f"{path}, sheet {sheet!r}"
    if len(sheets) > 1:
        tell(f"{name}: the other {len(sheets) - 1} sheets are not submitted")
    cells = list(frame.itertuples(index=False, name=None))
    # pandas reads errors, such as #N/A, as NaN.
    errors = _errors(path, sheet) if any(float in map(type, row) for row in cells) else {}
    rows = [
        [errors.get((at, column), str(cell)) for column, cell in enumerate(row)]
        for at, row in enumerate(cells)
    ]
    if any("" in row for row in rows):
        _refuse_uncalculated(path, name, sheet)
    if form.separator is not None and frame.shape[1] == 1:
        rows = [cell.split(form.separator) for [cell] in rows]
    numbered = enumerate(rows, 1)
    yield from _plain(_checked(numbered, ",", name, form), numbers)


def _errors(path: Path, sheet: str) -> dict[tuple[int, int], str]:
    """The cells of a sheet that have an error for a value, by row and column, counted from 0."""
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        return {
            (at, column): str(cell.value)
            for at, row in enumerate(book[sheet].iter_rows())
            for column, cell in enumerate(row)
            if cell.data_type == "e"
        }
    finally:
        book.close()


def _refuse_uncalculated(path: Path, name: str, sheet: str) -> None:
    """Raise CommandFailed if a formula has no value, as libraries write them: it reads as empty."""
    import openpyxl

    books = [
        openpyxl.load_workbook(path, read_only=True, data_only=known) for known in (False, True)
    ]
    for at, cells in enumerate(zip(*(book[sheet].iter_rows() for book in books), strict=True), 1):
        for written, calculated in zip(*cells, strict=True):
            # An empty text that Excel has calculated is of the type str.
            is_unknown = calculated.value is None and calculated.data_type == "n"
            if is_unknown and written.data_type == "f":
                raise CommandFailed(
                    f"{name}, line {at}: the formula {_shown(str(written.value))} has no value: "
                    "open the workbook in Excel and save it"
                )
    for book in books:
        book.close()


def url_lines(opened: Opened, name: str, encoding: str | None) -> Iterator[bytes]:
    """Convert URLs, one a line, to items on the same lines; a comment (#) becomes an empty line.

    Raises:
        CommandFailed: it cannot be read, or is a table.
    """

    def item(at: int, line: str) -> str:
        url = line.strip()
        if not url or url.startswith("#"):
            return ""
        if _CELLS.search(url) and ("://" not in url or "\t" in url):
            raise CommandFailed(
                f"{name}, line {at}: {_shown(url)} is a row of a table: name a table .tsv or .csv"
            )
        return json.dumps({"url": url})

    return _converted(opened, name, encoding, item)


def json_lines(opened: Opened, name: str, encoding: str | None) -> Iterator[bytes]:
    """Convert NDJSON to UTF-8 without changing its lines. Raises CommandFailed."""
    return _converted(opened, name, encoding, lambda _, line: line.rstrip("\r\n"))


def _converted(
    opened: Opened, name: str, encoding: str | None, convert: Callable[[int, str], str]
) -> Iterator[bytes]:
    batch: list[str] = []
    for at, line in enumerate(_lines(opened, name, encoding, newline=None), 1):
        _check_bytes(f"{name}, line {at}", line, encoding)
        batch.append(convert(at, line))
        if len(batch) == _AT_ONCE:
            yield ("\n".join(batch) + "\n").encode()
            batch.clear()
    yield "\n".join(batch).encode()


def _lines(opened: Opened, name: str, encoding: str | None, newline: str | None) -> Iterator[str]:
    """The lines of a text; a byte that is not of its encoding becomes a surrogate."""
    at = 0
    try:
        with opened() as packed, ExitStack() as stack:
            with _unpacked(packed, name) as file:
                head = file.read(4)
            file = stack.enter_context(_unpacked(packed, name))
            if encoding is None or codecs.lookup(encoding).name == "utf-8":
                marked = [codec for mark, codec in _ENCODINGS if head.startswith(mark)]
                marked += [codec for letters, codec in _UNMARKED if letters.match(head)]
                encoding = next(iter(marked), "utf-8-sig")
            is_wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
            errors = "strict" if is_wide else "surrogateescape"
            text = io.TextIOWrapper(file, encoding, errors, newline)
            try:
                for line in text:
                    at += 1
                    yield line.removeprefix("\ufeff")  # of a file appended to another one
            finally:
                text.detach()  # or it would close a file that is read again
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(error.encoding, "replace")
        at += 1 + len(_LINE_BREAK.findall(before))
        raise CommandFailed(
            f"{name}, line {at}: the byte 0x{error.object[error.start]:02X} is not {encoding} "
            f"({error.reason}): give --encoding with the right one"
        ) from None
    except UnicodeError as error:
        raise CommandFailed(
            f"{name}: not {encoding} ({error}): give --encoding with the right one"
        ) from None
    except _DAMAGED as error:
        raise CommandFailed(
            f"{name}, after line {at}: cannot be read ({error}): check that the file is complete"
        ) from None


def _unpacked(file: BinaryIO, name: str) -> AbstractContextManager[Any]:
    """Decompress a file from its beginning, if its first bytes are those of a compressed one."""
    file.seek(0)
    head = file.read(8)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if head.startswith(b"BZh") and head[4:8] == b"1AY&":
        return io.BufferedReader(_Streams(file, bz2.BZ2Decompressor))
    if head.startswith(b"\xfd7zXZ"):
        return io.BufferedReader(_Streams(file, lzma.LZMADecompressor))
    if head.startswith(b"PK\x03\x04"):
        packed = zipfile.ZipFile(file)
        names = [inner for inner in packed.namelist() if not inner.startswith("__MACOSX/")]
        if "[Content_Types].xml" in names:
            raise CommandFailed(f"{name} is an Excel workbook: name it .xlsx, or {SAVE_AS_CSV}")
        if {"mimetype", "Index/Document.iwa"} & set(names):
            raise CommandFailed(f"{name} is a sheet of LibreOffice or Numbers: {SAVE_AS_CSV}")
        if len(names) != 1:
            raise CommandFailed(f"{name} contains {len(names)} files: unpack it and name one")
        return packed.open(names[0])
    if head.startswith(_OLD_EXCEL):
        raise CommandFailed(f"{name} is a workbook of an old Excel: {SAVE_AS_CSV}")
    return nullcontext(file)


class _Streams(io.RawIOBase):
    """The content of a .bz2 or .xz file, which consists of one stream or several.

    Unlike bz2.BZ2File and lzma.LZMAFile, which end before what is not a stream, it raises OSError,
    EOFError or LZMAError there.
    """

    def __init__(
        self,
        file: BinaryIO,
        new_stream: type[bz2.BZ2Decompressor] | type[lzma.LZMADecompressor],
    ) -> None:
        self._file = file
        self._new_stream = new_stream
        self._stream = new_stream()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _read(self, most_bytes: int) -> bytes:
        """Up to `most_bytes` of the content, none at its end."""
        content = b""
        while not content:
            packed = b""
            if self._stream.eof:
                packed = self._next_stream()
                if not packed:
                    break
                self._stream = self._new_stream()
            elif self._stream.needs_input:
                packed = self._file.read(_PACKED_BYTES)
                if not packed:
                    raise EOFError("its last stream has no end")
            content = self._stream.decompress(packed, most_bytes)
        return content

    def _next_stream(self) -> bytes:
        """The first bytes after a stream and its padding, none at the end of the file."""
        packed = self._stream.unused_data or self._file.read(_PACKED_BYTES)
        if self._new_stream is bz2.BZ2Decompressor:
            return packed
        padding_bytes = 0
        while packed.startswith(b"\0"):
            rest = packed.lstrip(b"\0")
            padding_bytes += len(packed) - len(rest)
            packed = rest or self._file.read(_PACKED_BYTES)
        if padding_bytes % 4:
            raise lzma.LZMAError("the padding after a stream is no multiple of 4 bytes")
        return packed


def _quoted_rows(
    lines: Iterable[str], separator: str, name: str, url_column: str
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV with their first lines."""
    last, in_header = "", True
    rows = csv.reader(((last := line) for line in lines), delimiter=separator, strict=True)
    at = 1
    try:
        for row in rows:
            yield at, row
            at = rows.line_num + 1
            in_header = in_header and not any(row)
    except csv.Error as error:
        if in_header:
            _check_separator(
                f"{name}, line {at}", last.strip().split(separator), separator, url_column
            )
        where = f"{name}, line {at}: the row that begins there"
        if "field limit" in str(error):
            limit = f"{csv.field_size_limit():,} characters"
            raise CommandFailed(f"{where} has a cell of more than {limit}: shorten it") from None
        raise CommandFailed(
            f"{where} is malformed ({error}): a cell that holds a quotation mark must be quoted as "
            "a whole, with that mark written twice; if no cell of the table is quoted, add "
            "--no-quotes"
        ) from None


def _checked(
    rows: Iterable[tuple[int, list[str]]], separator: str, name: str, form: Form
) -> Iterator[tuple[int, list[str]]]:
    """Leave out empty rows, and check the header and the bytes of the others."""
    header: list[str] = []
    url_at: int | None = None
    for at, row in rows:
        text = "".join(row)
        if not text or text.isspace():
            continue
        if not text.isascii() and _BAD_BYTE.search(text):
            _refuse_bytes(name, at, header, row, form.encoding)
        if not header:
            header = row
            names = [cell.strip() for cell in row]
            url_at = names.index(form.url_column) if form.url_column in names else None
            _check_separator(f"{name}, line {at}", header, separator, form.url_column)
        if url_at is not None and ("\n" in text or "\r" in text):
            column = _cell_of_rows(row, len(header), url_at, separator)
            if column is not None:
                raise CommandFailed(
                    f"{name}, line {at}, column {_title(header, column)}: the cell "
                    f"{_shown(row[column])} holds whole rows: is a quotation mark at its beginning "
                    "not closed? Write that mark twice in a quoted cell, or add --no-quotes if no "
                    "cell of the table is quoted"
                )
        yield at, row


def _cell_of_rows(row: Sequence[str], width: int, url_at: int, separator: str) -> int | None:
    """Find a cell that holds rows, as one does that begins with a stray quotation mark."""
    for at, cell in enumerate(row):
        first, *others = (line.split(separator) for line in _LINE_BREAK.split(cell))
        if not others:
            continue
        *between, last = others
        if any(len(line) == width and "://" in line[url_at] for line in between):
            return at
        # The cells before this one belong to the first line, and those after it to the last.
        if at + len(first) == width == len(last) + len(row) - at - 1:
            url_in_first = row[url_at] if url_at < at else first[url_at - at]
            url_in_last = [*last, *row[at + 1 :]][url_at]
            if "://" in url_in_first and "://" in url_in_last:
                return at
    return None


def _plain(rows: Iterable[tuple[int, list[str]]], numbers: LineNumbers) -> Iterator[bytes]:
    """Write rows as plain CSV, with empty lines where the file has other lines than rows."""
    text = io.StringIO()
    writer = csv.writer(text)
    sent = 1
    numbers.reset()
    for count, (at, row) in enumerate(rows, 1):
        if at > sent:
            text.write("\r\n" * (at - sent))
            sent = at
        numbers.add(sent, at)
        writer.writerow(row)
        sent += 1 + sum(len(_LINE_BREAK.findall(cell)) for cell in row)
        if count % _AT_ONCE == 0:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


def _check_separator(where: str, header: list[str], separator: str, url_column: str) -> None:
    """Raise CommandFailed if a header has the column of URLs with another separator only."""
    text = separator.join(header)
    if url_column in map(str.strip, header):
        return
    for other, word in _SEPARATORS.items():
        columns = [cell.strip(' "') for cell in text.split(other)]
        if other != separator and (url_column in columns or (len(header) == 1 and other in text)):
            option = "$'\\t'" if other == "\t" else f"'{other}'"
            raise CommandFailed(
                f"{where}: the columns are separated by {word} ({_shown(text)}): add --sep {option}"
            )


def _check_bytes(where: str, cell: str, encoding: str | None) -> None:
    """Raise CommandFailed if a cell has a byte that is not of the encoding of its file."""
    if cell.isascii() or not (found := _BAD_BYTE.search(cell)):
        return
    byte = f"{where}: the byte 0x{ord(found[0]) - 0xDC00:02X}"
    if encoding is not None:
        raise CommandFailed(f"{byte} is not {encoding}: give --encoding with the right one")
    western = cell.encode(errors="surrogateescape").decode("cp1252", "replace")
    if _CONTROL.search(western):
        raise CommandFailed(f"{byte} is not UTF-8, nor text: name a table, a list or a picture")
    raise CommandFailed(
        f"{byte} is not UTF-8; as Windows-1252 the text is {_shown(western)}: if that is right, "
        "add --encoding cp1252, else the right one"
    )


def _refuse_bytes(
    name: str, at: int, header: list[str], row: list[str], encoding: str | None
) -> None:
    """Raise CommandFailed for a row with such a byte, and say in which line and column."""
    for column, cell in enumerate(row):
        before = cell[: found.start()] if (found := _BAD_BYTE.search(cell)) else cell
        at += len(_LINE_BREAK.findall(before))
        _check_bytes(f"{name}, line {at}, column {_title(header, column)}", cell, encoding)


def _title(header: Sequence[str], column: int) -> str:
    return repr(header[column]) if column < len(header) else str(column + 1)


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…")
