"""Tables as spreadsheets write them: what is read of them, and what is said of bad ones."""

import gzip
import time
from io import BytesIO

import httpx2
import pytest

from api.intake.bodies import add_json, add_ndjson, form_options, options_from_query, read_json
from api.intake.forms import Part
from api.intake.items import ItemReceiver
from api.intake.tables import add_csv
from api.urls import url_problem
from tests.api.polling import wait_done
from tests.worker.fetching.site import Site
from worker.jobs.errors import BodyUnreadable, ItemsRefused, JobRefused, TooLarge
from worker.jobs.items import ItemSpec
from worker.jobs.settings import Settings

URL = b"http://h/"


class Received(ItemReceiver):
    """Keeps the items."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings())
        self.specs: list[ItemSpec] = []

    def _accept(self, spec: ItemSpec, _payload: bytes | None) -> None:
        self.specs.append(spec)


def read(body: bytes, **params: str) -> Received:
    received = Received()
    add_csv(BytesIO(body), params, received)
    received.problems.check()
    return received


@pytest.mark.parametrize(
    ("body", "columns"),
    [
        (b"sep=,\r\nurl,sku\r\nhttp://h/,a\r\n", {"sku": "a"}),
        (b'"sep=;"\r\nurl;sku\r\nhttp://h/;a,b\r\n', {"sku": "a,b"}),
        (b"sep=\t\nurl\tsku\nhttp://h/\ta\n", {"sku": "a"}),
        (b"url,sku,,\r\nhttp://h/,a,,\r\n", {"sku": "a"}),
        (b"url,sku\nhttp://h/,a,,\n", {"sku": "a"}),
        (b"url,sku\nhttp://h/,a\n,\n , \n\n", {"sku": "a"}),
        (b"\n,,\nurl,sku\n,\nhttp://h/,a\n", {"sku": "a"}),
        (b"sku, url\na, http://h/\n", {"sku": "a"}),
        (b"url ,sku\nhttp://h/ ,a\n", {"sku": "a"}),
        ("url,sku\n\u00a0http://h/\t,ü\n".encode("utf-8-sig"), {"sku": "ü"}),
        (b"url,sku\rhttp://h/,a\r", {"sku": "a"}),
        (b"url,a|b\nhttp://h/,1;2\n", {"a|b": "1;2"}),
        (b'url,sku\nhttp://h/,"a,b\nc,http://x,d\n"\n', {"sku": "a,b\nc,http://x,d\n"}),
        (b'sku,url\n"a\nb",http://h/\n', {"sku": "a\nb"}),
        ("sku,url\n\ufeffa,http://h/\n".encode("utf-8-sig"), {"sku": "a"}),  # two files in one
        (b"url\nhttp://h/\n", None),
    ],
)
def test_tables_as_spreadsheets_write_them_are_read(
    body: bytes, columns: dict[str, str] | None
) -> None:
    received = read(body)
    assert received.specs == [ItemSpec("0", "http://h/", columns=columns)]
    assert received.csv is not None
    assert set(received.csv.header) == {"url", *(columns or {})}


# Each names the line, the column if it is one, what is there, and what to do.
REFUSALS = {
    "semicolons": (b"sku;url;price\na;http://h/;9,90\n", {}, ["line 1", "semicolons", "'sku;url;"]),
    "by the page": (b"url;sku\nhttp://h/;a\n", {"url_column": "url;sku"}, ["semicolons", "commas"]),
    "commas in names": (b"url;size, cm\nu;1\n", {"url_column": "url;size"}, ["semicolons"]),
    "tabs": (b"sku\turl\na\thttp://h/\n", {}, ["line 1", "tabs", "save the table with commas"]),
    "no column": (b"sku,link\na,b\n", {}, ["line 1", "'url'", "sku, link", "?url_column="]),
    "no id column": (b"url,a\nx,b\n", {"id_column": "sku"}, ["'sku'", "url, a", "?id_column="]),
    "twice": (b"url,a,b,a\n", {}, ["line 1", "'a' is there twice", "columns 2 and 4", "rename"]),
    "unnamed": (b"url,,,b\n", {}, ["line 1", "two columns have no name", "columns 2 and 3"]),
    "utf-16": ("url\nü\n".encode("utf-16"), {}, ["UTF-16", "save it as UTF-8"]),
    "utf-16 without mark": ("url\n".encode("utf-16-le"), {}, ["UTF-16", "save it as UTF-8"]),
    "byte": (
        b"url,town\n" + b"http://h/,x\n" * 50 + b"http://h/,M\xfcnchen\n",
        {},
        ["line 52", "column 'town'", "0xFC", "'M\u00fcnchen'", "save the table as UTF-8"],
    ),
    "byte in lines": (b'url,a\nx,"1\r\n\xe9"\n', {}, ["line 3", "column 'a'", "0xE9"]),
    "byte in the header": (b"url,Gr\xf6\xdfe\n", {}, ["line 1", "column 2", "'Größe'"]),
    "quote": (b'url,a\nx,8"\ny,"8" x\n', {}, ["line 3", "not CSV", "written twice"]),
    "rows in a cell": (
        b'a,url\n"x,http://h/1\ny,http://h/2\nz",http://h/3\n',
        {},
        ["line 2", "column 'a'", "holds whole rows", "twice"],
    ),
    "two rows in a cell": (
        b'url,a\nhttp://h/1,x\nhttp://h/2,"y\nhttp://h/3,z"\n',
        {},
        ["line 3", "column 'a'", "holds whole rows"],
    ),
    "rows in a cell too many": (
        b'url,a\nhttp://h/1,x,"y\nhttp://h/2,z\nq"\n',
        {},
        ["line 2", "column 3", "holds whole rows"],
    ),
    "title": (
        b"My photos\n\nurl,k\nhttp://h/,1\n",
        {},
        ["line 3: the header with 'url'", "above it"],
    ),
    "stray quote below": (b'a,b\n"x"y,url\n', {}, ["line 1: there is no column 'url'"]),
    "semicolons and quotes": (b'"url";"k"\n"http://h/";"1"\n', {}, ["line 1", "semicolons"]),
    "page": (b"\n<!DOCTYPE html>\n<p>Log in</p>\n", {}, ["an HTML or XML page", "send the table"]),
    "json": (b'[{"url": "http://h/"}]', {}, ["line 1", "JSON and not a table", "application/json"]),
    "invisible name": ("\u200burl,k\n".encode(), {}, ["'url'", r"'\u200burl', k", "?url_column="]),
    "gzip": (gzip.compress(b"url\n"), {}, ["gzip-compressed", "send it unpacked"]),
    "zip": (b"PK\x03\x04", {}, ["zip archive or an Excel workbook", "send it as text"]),
    "empty": (b"\xef\xbb\xbf\n", {}, ["the table is empty", "send a header"]),
    "no rows": (b"url,k\n,\n", {}, ["a header and no rows", "add a row"]),
    "no header": (
        b"http://h/1\nhttp://h/2\n",
        {},
        ["line 1: there is a URL instead", "such as url"],
    ),
    "row": (b"url\n" + b"," * 1_000_000, {}, ["line 2", "1,000,000 characters", "shorten it"]),
    "row of lines": (b"url\n" + b'"\n",' * 250_000, {}, ["line 2", "1,000,000 characters"]),
    "row without end": (
        b"u" * 1_000_001,
        {},
        ["line 1", "1,000,000 characters", "quotation marks"],
    ),
    "cell": (b"url\n" + b"x" * 200_000, {}, ["line 2", "131,072 characters", "shorten it"]),
}
ROWS = {
    "few": (b"a,url\n1\n", ["line 2, '1', has 1 cells", "the header has 2", "add its empty cells"]),
    "many": (
        b"url,a\nx,1,5\n",
        ["line 2, 'x,1,5', has 3 cells", "'5' has no column", "quote a cell"],
    ),
    "no id": (b"id,url\n\n,http://h/\n", ["line 3, column 'id': the id is empty: write one"]),
    "no url": (b"id,url\na, \n", ["line 2, column 'url': the URL is empty"]),
    "scheme": (b"id,url\na,ftp://h/?key\n", ["column 'url'", "is 'ftp://h/'"]),
    "space": (b"id,url\na,http://h/a b\n", ["column 'url'", "after 'http://h/a'", "encode"]),
    "invisible": (
        "id,url\na,http://h/a\u200b\n".encode(),
        ["invisible characters after 'http://h/a'"],
    ),
    "several lines": (b'url,id\nhttp://h/,"1\n2"\nx,3\n', ["line 4, column 'url'"]),
    "line separator": (
        "url\nhttp://h/a\u2028http://h/b\n".encode(),
        ["line 2, column 'url'", "invisible characters after 'http://h/a'"],
    ),
    "two urls": (
        b'url\n"http://h/a,https://h/b"\n',
        ["line 2, column 'url'", "another URL after ','", "an item of its own"],
    ),
    "three urls": (b"url\nhttp://h/a|HTTP://h/b|http://h/c\n", ["another URL after '|'"]),
    "long cell": (
        b"url,note\nhttp://h/," + b"x" * 20_000 + b"\n",
        ["line 2: its columns have 20004 characters", "the longest, 'note'"],
    ),
    "nul": (b"url,a\n\0\0\n", [r"line 2, '\x00\x00', has 1 cells"]),
    "long id": (b"id,url\n" + b"x" * 1025 + b",http://h/\n", ["line 2: the id has 1025"]),
}


@pytest.mark.parametrize(
    "url",
    [
        "http://h/fetch/w_1,f_auto/https://h/b.jpg",
        "http://h/?sizes=1,2&url=https://h/b.jpg",
        "http://h/a,b;c|d.jpg",
    ],
)
def test_a_url_may_have_another_one_in_its_path_or_query(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refused_table_names_the_place_and_what_to_do(kind: str) -> None:
    body, params, says = REFUSALS[kind]
    with pytest.raises(JobRefused) as refused:
        read(body, **params)
    for part in says:
        assert part in str(refused.value), str(refused.value)


def test_a_header_of_many_columns_is_read_in_its_length() -> None:
    names = [f"c{at}" for at in range(50_000)]
    began = time.monotonic()
    with pytest.raises(JobRefused, match="there is no column 'url'") as refused:
        read(",".join(names).encode() + b"\n")
    assert len(str(refused.value)) < 1000
    assert time.monotonic() - began < 5  # comparing all names with all takes minutes


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"url": "http://h/1", "url": "http://h/2"}', "the name 'url' twice"),
        (b'{"url": "http://h/", "columns": {"a": "1", "\\u0061": "2"}}', "the name 'a' twice"),
    ],
)
def test_an_item_with_a_name_twice_is_refused(line: bytes, says: str) -> None:
    received = Received()
    add_ndjson(BytesIO(b'{"url": "http://h/"}\n' + line), received)
    with pytest.raises(ItemsRefused) as refused:
        received.problems.check()
    (problem,) = refused.value.problems
    assert problem.detail.startswith("line 2: ")
    assert says in problem.detail


def test_invalid_items_count_too() -> None:
    received = Received(Settings(max_items=3))
    with pytest.raises(TooLarge, match="more than 3 items: send the rest as another job"):
        add_ndjson(BytesIO(b"{}\n" * 4), received)
    assert received.problems.count == 3


def test_a_json_body_has_a_limited_number_of_lists_and_objects() -> None:
    with pytest.raises(TooLarge, match="200000 lists and objects: send NDJSON instead"):
        read_json(BytesIO(b'{"urls":[' + b"[]," * 200_000 + b'""]}'))


URLS = b'"urls": ["http://h/"]'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{%s, "urls": ["http://h/2"]}' % URLS, "the name 'urls' twice"),
        (b'{"items": [{"url": "http://h/1", "url": "http://h/2"}]}', "the name 'url' twice"),
        (b'{%s, "metadata": {"a": NaN}}' % URLS, "metadata: has NaN or an infinite"),
        (b'{%s, "metadata": {"a": [1e999]}}' % URLS, "metadata: has NaN"),
        (b'{"draft": true, %s}' % URLS, "urls: a draft begins without items: send them to /jobs/"),
        (b'{"draft": true, "items": [{"url": "http://h/"}]}', "items: a draft begins without"),
    ],
)
def test_nothing_of_a_json_body_is_dropped_in_silence(body: bytes, says: str) -> None:
    with pytest.raises(JobRefused) as refused:
        read_json(BytesIO(body))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("metadata", "says"), [('{"a": 1, "a": 2}', "the name 'a' twice"), ('{"a": NaN}', "has NaN")]
)
def test_nothing_of_metadata_is_dropped_in_silence(metadata: str, says: str) -> None:
    with pytest.raises(JobRefused, match=says):
        options_from_query({"metadata": metadata})
    with pytest.raises(JobRefused, match=says):
        form_options(
            [Part("options", content=bytearray(b'{"metadata":%s}' % metadata.encode()))], 1
        )


def test_options_of_a_form_are_one_part_also_with_a_byte_order_mark() -> None:
    options = Part("options", content=bytearray(b'\xef\xbb\xbf{"name": "x"}'))
    assert form_options([options], 1).name == "x"
    with pytest.raises(JobRefused, match="two parts 'options': send one"):
        form_options([options, options], 1)


@pytest.mark.parametrize("kind", ROWS)
def test_a_refused_row_names_the_place_and_what_to_do(kind: str) -> None:
    body, says = ROWS[kind]
    params = {"id_column": "id"} if b"id" in body else {}
    with pytest.raises(ItemsRefused) as refused:
        read(body, **params)
    (problem,) = refused.value.problems
    for part in says:
        assert part in problem.detail, problem.detail


def test_numbers_of_ndjson_become_the_text_that_json_has() -> None:
    received = Received()
    columns = b'{"price": 12.5, "count": 3, "big": 12345678901234567890, "text": "007"}'
    add_ndjson(BytesIO(b'{"url": "http://h/", "columns": ' + columns + b"}\n"), received)
    (spec,) = received.specs
    cells = {"price": "12.5", "count": "3", "big": "12345678901234567890", "text": "007"}
    assert spec.columns == cells


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"url": http://h/}', "line 2: not JSON (expected value at column 9): write each item"),
        (b"{", "line 2: not JSON (EOF while parsing an object at column 0): write each item on a"),
        (b'{"url":"http://h/"},', 'such as {"url": "https://…"}, without brackets or commas'),
        (b'{"url":"http://h/1"}\r{"url":"http://h/2"}\r', "line 2: there is a CR, which ends no"),
        (b'{"url":"\xe9"}', "line 2, column 9: the byte 0xE9 is not UTF-8: save or send"),
        (b'{"url":"http://h/","id":7}', "line 2: id: must be a string, in quotes, and is 7"),
        (b'{"url":"http://h/","columns":{"new":true}}', "columns.new: must be a string, in quotes"),
        (
            b'{"url":"http://h/","columns":{"price":NaN}}',
            "line 2: columns.price: is NaN or an infinite number, which JSON does not have: leave",
        ),
        (b'{"url":"http://h/","columns":{"a":-1e999}}', "line 2: columns.a: is NaN or an infini"),
        (b'{"url":"http://h/","id":""}', "line 2: id: must have at least 1 character, and is ''"),
    ],
)
def test_a_line_of_ndjson_is_refused_by_its_place_with_what_to_do(line: bytes, says: str) -> None:
    received = Received()
    add_ndjson(BytesIO(b'{"url": "http://h/"}\n' + line + b"\n"), received)
    with pytest.raises(ItemsRefused) as refused:
        received.problems.check()
    (problem,) = refused.value.problems
    assert says in problem.detail, problem.detail


@pytest.mark.parametrize("cell", [b"NaN", b"Infinity", b"1e999"])
def test_a_cell_of_json_that_is_no_finite_number_is_refused_by_its_item(cell: bytes) -> None:
    received = Received()
    item = b'{"url": "http://h/", "columns": {"price": %s}}'
    add_json(read_json(BytesIO(b'{"items": [%s, %s]}' % (item % b"1", item % cell))), received)
    with pytest.raises(ItemsRefused) as refused:
        received.problems.check()
    (problem,) = refused.value.problems
    assert problem.index == 1
    assert problem.detail.startswith("columns.price: is NaN or an infinite number")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is empty: send JSON"),
        (b'{"urls":\n["\xe9"]}', "line 2, column 3: the byte 0xE9 is not UTF-8: save or send"),
        (b"<html>", "an HTML or XML page"),
    ],
)
def test_json_that_cannot_be_read_says_what_is_there(body: bytes, says: str) -> None:
    with pytest.raises(BodyUnreadable, match=says):
        read_json(BytesIO(body))


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
def test_json_in_utf_16_says_so_and_urls_lose_their_spaces(
    client: httpx2.Client, kind: str
) -> None:
    headers = {"content-type": kind}
    body = (
        '{"urls": [" http://127.0.0.1:9/ "]}'
        if kind.endswith("/json")
        else '{"url": " http://127.0.0.1:9/"}'
    )
    refused = client.post("/jobs", content=body.encode("utf-16"), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "body_unreadable")
    assert "UTF-16: save it as UTF-8" in refused.json()["detail"]
    accepted = client.post("/jobs", content=body, headers=headers)
    assert accepted.status_code == 202, accepted.text
    job = wait_done(client, accepted.json())
    assert job["results"][0]["source"]["url"] == "http://127.0.0.1:9/"


def test_results_repeat_the_columns_of_a_table_of_excel(client: httpx2.Client) -> None:
    with Site() as site:
        table = f"sep=;\r\nsku; url;;\r\na;{site.url('/1')};;\r\n;;;\r\n".encode()
        headers = {"content-type": "text/csv"}
        job = client.post("/jobs", content=table, headers=headers).json()
        wait_done(client, job)
        results = client.get(f"/jobs/{job['id']}/results", params={"format": "csv"}).text
    assert results.splitlines()[0].startswith("sku,url,status")
    assert results.splitlines()[1].startswith(f"a,{site.url('/1')},failed")
