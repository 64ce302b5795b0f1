"""Tables and lists as people have them: what is sent of them, and what is said of bad ones."""

import bz2
import csv
import gzip
import io
import lzma
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pandas
import pytest
from openpyxl.chart import BarChart, Reference
from openpyxl.worksheet.worksheet import Worksheet

from piqueue.commands.sources import Lines, Pictures, Table, find_source
from piqueue.commands.tables import Form
from piqueue.commands.terminal import CommandFailed
from tests.pictures import jpeg

URL = "http://h/a.jpg"


def sent(path: Path, form: Form | None = None) -> str:
    """The body that a table or list becomes; a second time the same, as for a retry."""
    source = find_source([str(path)], form or Form())
    assert isinstance(source, Table | Lines)
    body = source.rows if isinstance(source, Table) else source.items
    text = b"".join(body()).decode()
    assert b"".join(body()).decode() == text
    return text


def write(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def zipped(content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as packed:
        packed.writestr("photos.csv", content)
        packed.writestr("__MACOSX/._photos.csv", b"x")
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("photos.csv.gz", gzip.compress),
        ("photos.csv.bz2", bz2.compress),
        ("photos.csv.xz", lzma.compress),
        ("photos.csv.zip", zipped),
        ("photos.csv", gzip.compress),
    ],
)
def test_a_compressed_table_is_told_by_its_first_bytes(
    name: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = write(tmp_path, name, pack(f"url\n{URL}\n".encode()))
    assert sent(path) == f"url\r\n{URL}\r\n"


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
ROWS = b"".join(b"http://h/%d.jpg\n" % number for number in range(20_000))


@pytest.mark.parametrize("kind", PACKERS)
def test_a_compressed_table_may_have_several_streams(kind: str, tmp_path: Path) -> None:
    pack = PACKERS[kind]
    padding = b"" if kind == "bz2" else bytes(400_000)
    between = padding if kind == "xz" else b""
    content = pack(b"url\n") + between + pack(b"") + pack(ROWS) + padding
    expected = (b"url\n" + ROWS).decode().replace("\n", "\r\n")
    assert sent(write(tmp_path, f"photos.csv.{kind}", content)) == expected


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("fault", ["damaged", "garbage", "cut", "cut at once", "odd padding"])
def test_a_table_with_a_damaged_stream_is_refused(kind: str, fault: str, tmp_path: Path) -> None:
    first, second = PACKERS[kind](b"url\n"), PACKERS[kind](ROWS)
    content = {
        "damaged": first + b"x" + second[1:],
        "garbage": first + second + b"garbage",
        "cut": first + second[:-9],
        "cut at once": first + second[:2],
        "odd padding": first + bytes(5) + (b"x" if kind == "gz" else second),
    }[fault]
    path = write(tmp_path, f"photos.csv.{kind}", content)
    with pytest.raises(CommandFailed, match=r"after line .*cannot be read.*complete") as refused:
        sent(path)
    assert str(refused.value).startswith(f"{path}, ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["photos.csv", "photos.tsv", "photos.txt", "photos.ndjson"])
def test_a_byte_order_mark_says_the_encoding(name: str, encoding: str, tmp_path: Path) -> None:
    text = {
        "photos.csv": f"ü,url\n1,{URL}\n",
        "photos.tsv": f"ü\turl\n1\t{URL}\n",
        "photos.txt": f"# ü\n\ufeff{URL}\n",  # two files in one
        "photos.ndjson": f'{{"url": "{URL}", "id": "ü"}}\n',
    }[name]
    body = sent(write(tmp_path, name, text.encode(encoding)))
    assert body.lstrip().startswith(("ü,url\r\n1,", '{"url": "http'))


def test_each_row_keeps_its_line(tmp_path: Path) -> None:
    table = b'sep=;\r\n\r\n"two\r\nlines";url\r\n\r\n;;\r\na;u1\r\n"b\rb";u2\r\nc;u3'
    body = sent(write(tmp_path, "photos.csv", table))
    reader = csv.reader(io.StringIO(body, newline=""))
    lines = {row[-1]: reader.line_num for row in reader if row}
    assert lines == {"url": 4, "u1": 7, "u2": 9, "u3": 10}


def test_a_table_of_a_database_needs_no_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "photos.tsv", f'size\turl\r\n10"\t{URL}\r\n"12\t{URL}\r\n'.encode())
    with pytest.raises(CommandFailed, match=r"photos\.tsv, line 3.*--no-quotes"):
        sent(path)
    rows = list(csv.reader(io.StringIO(sent(path, Form(quotes=False)))))
    assert rows == [["size", "url"], ['10"', URL], ['"12', URL]]


def test_a_workbook_is_read_from_its_first_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photos.xlsx"
    columns = {
        "sku": ["007", "008"],
        "url": [URL, f"{URL} "],
        "price": [9.5, 3],
        "note": ["", None],
    }
    with pandas.ExcelWriter(path) as book:
        pandas.DataFrame(columns).to_excel(book, sheet_name="Photos", index=False, startrow=1)
        pandas.DataFrame({"x": [1]}).to_excel(book, sheet_name="other")
    rows = list(csv.reader(io.StringIO(sent(path))))
    assert rows == [
        [],
        ["sku", "url", "price", "note"],
        ["007", URL, "9.5", ""],
        ["008", f"{URL} ", "3", ""],
    ]
    assert "sheet 'Photos': the other 1 sheets are not submitted" in capsys.readouterr().err


def test_a_refused_row_of_a_workbook_has_its_number(tmp_path: Path) -> None:
    path = tmp_path / "photos.xlsx"
    pandas.DataFrame({"note": ["two\nlines", "x"], "url": ["a", "b"]}).to_excel(path, index=False)
    table = find_source([str(path)], Form())
    assert isinstance(table, Table)
    list(table.rows())
    for _ in range(2):
        own = [table.numbers.restored(f"line {at}: it has line 9") for at in (1, 2, 4)]
        assert own == [f"line {at}: it has line 9" for at in (1, 2, 3)]
        assert table.numbers.restored("line 2 and line 4 have 4") == "line 2 and line 3 have 4"
        list(table.rows())


@pytest.mark.parametrize("library", ["pandas", "openpyxl"])
def test_without_a_library_a_workbook_is_to_be_saved_as_csv(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "photos.xlsx", b"")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(CommandFailed, match=rf"photos\.xlsx.*{library}.*piqueue\[tables\].*CSV"):
        sent(path)


def workbook() -> bytes:
    target = io.BytesIO()
    pandas.DataFrame({"url": [URL]}).to_excel(target)
    return target.getvalue()


OPEN_DOCUMENT = io.BytesIO()
with zipfile.ZipFile(OPEN_DOCUMENT, "w") as _packed:
    _packed.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    _packed.writestr("content.xml", "<x/>")
TWO_FILES = io.BytesIO()
with zipfile.ZipFile(TWO_FILES, "w") as _packed:
    for _name in ("a.csv", "b.csv"):
        _packed.writestr(_name, b"url\n")

# Each names the file, the line if there is one, the column, what is there, and what to do.
REFUSALS = {
    "separator": ("a.csv", b"sku;url\na;b\n", ["line 1", "semicolons", "'sku;url'", "--sep ';'"]),
    "tabs": ("a.csv", b"sku\turl\na\tb\n", ["line 1", "tabs", "'sku\\turl'", "--sep $'\\t'"]),
    "commas": ("a.tsv", b"\nsku,url\na,b\n", ["line 2", "commas", "'sku,url'", "--sep ','"]),
    "one column": ("a.csv", b"sku;link\na;b\n", ["line 1", "'sku;link'", "--sep ';'"]),
    "byte": (
        "a.csv",
        b"url,town\n" + b"http://h/,x\n" * 50 + b"http://h/,M\xfcnchen\n",
        ["line 52", "column 'town'", "0xFC", "'M\u00fcnchen'", "--encoding cp1252"],
    ),
    "byte in lines": (
        "a.csv",
        b'url,town\nx,y\nhttp://h/,"two\nlines \xfc"\n',
        ["line 4", "column 'town'", "0xFC", "--encoding"],
    ),
    "byte in the header": ("a.csv", b"url,Gr\xf6\xdfe\nx,y\n", ["line 1", "column 2", "'Größe'"]),
    "byte in a list": ("a.txt", b"http://h/\nhttp://h/\xfc\n", ["line 2", "0xFC", "--encoding"]),
    "byte in ndjson": ("a.ndjson", b'{}\n{"url": "\xfc"}\n', ["line 2", "0xFC", "--encoding"]),
    "utf-16": (
        "a.csv",
        "url\nü".encode("utf-16")[:-1],
        ["line 2: the byte 0xFC", "utf-16", "--encoding"],
    ),
    "semicolons and quotes": (
        "a.csv",
        b'\n"url";"k"\n"http://h/";"1"\n',
        ["line 2", "separated by semicolons", "--sep ';'"],
    ),
    "no text": ("a.txt", b"\x00\xff\xfe\x01", ["line 1", "0xFF", "nor text"]),
    "quote": ("a.csv", b'url,size\na,8"\nb,"8" x\n', ["line 3", "written twice", "--no-quotes"]),
    "rows in a cell": (
        "a.tsv",
        b'sku\turl\n5" x\thttp://h/1\n"open\thttp://h/2\nz\thttp://h/3\nclose"\thttp://h/4\n',
        ["line 3", "column 'sku'", "holds whole rows", "--no-quotes"],
    ),
    "rows in a cell too many": (
        "a.csv",
        b'url,a\nhttp://h/1,x,"y\nhttp://h/2,z\nq"\n',
        ["line 2", "column 3", "holds whole rows"],
    ),
    "open quote": ("a.csv", b'url,size\na,"8\nb,9\n', ["line 2", "end of data", "written twice"]),
    "cell": ("a.csv", b"url\n" + b"x" * 200_000, ["line 2", "131,072 characters", "shorten"]),
    "cut": ("a.csv.gz", gzip.compress(b"url\n" * 9)[:-9], ["after line", "complete"]),
    "table as list": ("a.txt", b"sku\turl\n", ["line 1", "'sku\\turl'", "name a table .tsv"]),
    "workbook as csv": ("a.csv", workbook(), ["Excel workbook", "name it .xlsx"]),
    "header in a list": ("a.txt", b"url;k\n", ["line 1: 'url;k'", "name a table .tsv or .csv"]),
    "OpenDocument": ("a.csv", OPEN_DOCUMENT.getvalue(), ["LibreOffice or Numbers", "CSV UTF-8"]),
    "text as workbook": ("a.xlsx", b"url\n", ["not an Excel workbook", "name it .csv"]),
    "workbook with a password": ("a.xlsx", b"\xd0\xcf\x11\xe0", ["a password", "CSV UTF-8"]),
    "broken workbook": ("a.xlsx", b"PK\x03\x04", ["cannot be read", "CSV UTF-8"]),
    "old workbook": ("a.xls", b"", ["cannot be read", "CSV UTF-8"]),
    "old as csv": ("a.csv", b"\xd0\xcf\x11\xe0" + bytes(99), ["old Excel", "CSV UTF-8"]),
    "two files": ("a.csv.zip", TWO_FILES.getvalue(), ["contains 2 files", "unpack"]),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_names_the_place_and_what_to_do(kind: str, tmp_path: Path) -> None:
    name, content, says = REFUSALS[kind]
    path = write(tmp_path, name, content)
    with pytest.raises(CommandFailed) as refused:
        sent(path)
    text = str(refused.value)
    assert text.startswith(str(path))
    for part in says:
        assert part in text, text


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (Form(encoding="latin-99"), "--encoding 'latin-99': there is no such"),
        (Form(encoding="base64"), "--encoding 'base64': there is no such"),
        (Form(encoding=""), "--encoding '': there is no such"),
        (Form(encoding="undefined"), "--encoding 'undefined': there is no such"),
        (Form(separator='"'), "give one character"),
        (Form(separator="\n"), "give one character"),
        (Form(separator=";;"), "--sep ';;': give one character"),
        (Form(separator=""), "--sep '': give one character"),
    ],
)
def test_an_impossible_form_is_refused(form: Form, says: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"url\n")
    with pytest.raises(CommandFailed, match=says):
        sent(path, form)


def test_the_first_sheet_is_one_that_a_person_sees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photos.xlsx"
    book = openpyxl.Workbook()
    assert isinstance(book.active, Worksheet)
    book.active.append(["url"])
    book.active.append([f"{URL}?hidden"])
    book.active.sheet_state = "hidden"
    seen = book.create_sheet("seen")
    seen.append(["url"])
    seen.append([URL])
    chart = BarChart()
    chart.add_data(Reference(seen, 1, 1, 1, 2))
    book.create_chartsheet("chart", 0).add_chart(chart)
    book.active = 2
    book.save(path)
    assert sent(path) == f"url\r\n{URL}\r\n"
    assert "sheet 'seen': the other 1 sheets are not submitted" in capsys.readouterr().err
    book.remove(seen)
    book.save(path)
    with pytest.raises(CommandFailed, match="no visible sheet with cells: save it as"):
        sent(path)


def test_errors_in_cells_are_read_as_excel_shows_them(tmp_path: Path) -> None:
    rows = [["k", "url", "n"], ["#N/A", URL, "nan"], [None, "#REF!", 1.5], ["#DIV/0!", URL, None]]
    pandas.DataFrame(rows).to_excel(tmp_path / "a.xlsx", header=False, index=False)
    expected = f"k,url,n\r\n#N/A,{URL},nan\r\n,#REF!,1.5\r\n#DIV/0!,{URL},\r\n"
    assert sent(tmp_path / "a.xlsx") == expected


@pytest.mark.parametrize("calculated", [False, True])
def test_a_formula_without_a_value_is_no_empty_cell(calculated: bool, tmp_path: Path) -> None:
    frame = pandas.DataFrame({"url": [URL, URL], "k": [None, '=IF(1,"","x")']})
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    path = tmp_path / "b.xlsx"
    with zipfile.ZipFile(tmp_path / "a.xlsx") as written, zipfile.ZipFile(path, "w") as saved:
        for name in written.namelist():
            content = written.read(name)
            if calculated:  # as Excel saves an empty text
                content = content.replace(b'<c r="B3">', b'<c r="B3" t="str">')
            saved.writestr(name, content)
    if calculated:
        assert sent(path) == f"url,k\r\n{URL},\r\n{URL},\r\n"
    else:
        with pytest.raises(CommandFailed, match=r"Sheet1', line 3: the formula .* no value"):
            sent(path)


def test_the_columns_of_a_workbook_may_be_in_one_cell(tmp_path: Path) -> None:
    pandas.DataFrame({"url;k": [f"{URL};1"]}).to_excel(tmp_path / "a.xlsx", index=False)
    with pytest.raises(CommandFailed, match=r"separated by semicolons .* add --sep"):
        sent(tmp_path / "a.xlsx")
    assert sent(tmp_path / "a.xlsx", Form(separator=";")) == f"url,k\r\n{URL},1\r\n"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_byte_order_mark_is_read(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", f"url,ü\n{URL},ü\n".encode(encoding))
    assert sent(path) == f"url,ü\r\n{URL},ü\r\n"


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("ascii", "line 52, column 'k': the byte 0xC3 is not ascii: give --encoding"),
        ("shift-jis", "line 52, column 'k': the byte 0xFF is not shift-jis: give --encoding"),
        ("utf-16-le", "line 52: the byte 0x00 is not utf-16-le"),
    ],
)
def test_a_wrong_encoding_names_the_line_and_the_byte(
    encoding: str, says: str, tmp_path: Path
) -> None:
    rows = f"url,k\n{URL},1\n".encode(encoding) + f"{URL},1\n".encode(encoding) * 49
    bad = {"ascii": b"\xc3", "shift-jis": b"\xff", "utf-16-le": b"\0\xdc"}[encoding]
    table = rows + f"{URL},".encode(encoding) + bad + "\n".encode(encoding)
    with pytest.raises(CommandFailed) as refused:
        sent(write(tmp_path, "a.csv", table), Form(encoding=encoding))
    assert says in str(refused.value), str(refused.value)


def test_a_picture_with_the_name_of_a_table_is_a_picture(tmp_path: Path) -> None:
    for name in ("a.csv", "a.txt", "a.jsonl"):
        source = find_source([str(write(tmp_path, name, jpeg(1)))], Form())
        assert isinstance(source, Pictures)
        assert list(source.files) == [name]


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(CommandFailed, match="a name is empty"):
        find_source([""], Form())
