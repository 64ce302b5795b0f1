"""piqueue label: the page in a real browser, the table it writes, and requests it rejects."""

import csv
import io
import json
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from piqueue.commands.terminal import CommandFailed
from scripts.commands.__main__ import main
from scripts.workshop.labelling.label import open_table
from scripts.workshop.preview import jpeg_preview
from tests.pictures import jpeg
from tests.scripts.workshop.labelling.labelling import LabelPage, labelling
from worker.jobs.settings import ARTIFACTS_PATH


@pytest.fixture
def page(browser: Chrome) -> LabelPage:
    """Give an empty tab."""
    return LabelPage(browser)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures: a JPEG, one turned by its EXIF, and a TIFF."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(jpeg(1))
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(jpeg(2))) as image:
        image.save(folder / "b.jpg", exif=exif)
        image.resize((40, 20)).save(folder / "sub" / "c.tiff")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def labels_of(path: Path) -> dict[str, tuple[str, ...] | None]:
    """The labels of each picture, None if it is left out."""
    return {
        row["name"]: None
        if row.get("left_out")
        else tuple(label for label in row if row[label] == "1")
        for row in rows_of(path)
    }


def saved(page: LabelPage, path: Path, wanted: dict[str, tuple[str, ...] | None]) -> None:
    page.wait(f"{wanted} in the table", lambda: path.exists() and labels_of(path) == wanted)


def test_keys_label_skip_undo_and_each_answer_is_saved_at_once(
    page: LabelPage, folder: Path
) -> None:
    table = folder / "labels.csv"
    with labelling("label", folder, "--labels", "beach,city") as (url, process):
        page.open(url, "a.jpg")
        assert page.picture_size() == [320, 240]
        assert not table.exists()
        page.press("1")
        saved(page, table, {"a.jpg": ("beach",)})
        page.press("2", "1")
        saved(page, table, {"a.jpg": ("city",)})
        page.press(Keys.ENTER)
        page.shows("b.jpg", "open")
        assert page.picture_size() == [240, 320]
        page.press("s")
        page.shows("sub/c.tiff", "open")
        assert page.picture_size() == [40, 20]
        page.press(Keys.SPACE)
        saved(page, table, {"a.jpg": ("city",), "b.jpg": None, "sub/c.tiff": ()})
        page.wait("end", page.one("#done").is_displayed)

        page.press("u")
        page.shows("sub/c.tiff", "open")
        saved(page, table, {"a.jpg": ("city",), "b.jpg": None})
        page.press("u", "u", "u")
        page.shows("a.jpg", "labelled")
        saved(page, table, {"a.jpg": ("beach", "city")})
        page.press("u", "u")
        page.shows("a.jpg", "open")
        saved(page, table, {})
        page.wait("nothing to undo", lambda: not page.one("#undo").is_enabled())

        page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
        page.shows("sub/c.tiff")
        page.press("1")
        page.press(Keys.ARROW_LEFT)
        page.shows("b.jpg")
        assert page.one("#progress-text").text == "1 labelled"
        page.press("?")
        page.wait("help", page.one("#help").is_displayed)
        page.press("1", Keys.ESCAPE)
        page.wait("no help", lambda: not page.one("#help").is_displayed())
        page.shows("b.jpg", "open")
        page.finish()
        assert process.wait(30) == 0
        assert process.stdout
        assert "1 of 3 pictures are labelled" in process.stdout.read()
    saved(page, table, {"sub/c.tiff": ("beach",)})
    assert page.messages() == []


def test_buttons_do_what_the_keys_do(page: LabelPage, folder: Path) -> None:
    table = folder / "labels.csv"
    with labelling("label", folder, "--labels", "beach,city") as (url, _):
        page.open(url, "a.jpg")
        assert not page.one("#teach-button").is_displayed(), "no job keeps features"
        first, second = page.all("#labels button")
        second.click()
        page.shows("a.jpg", "labelled")
        page.press(Keys.ENTER)  # the label that was clicked has the focus, and is not set again
        page.shows("b.jpg")
        page.one("#skip").click()
        page.shows("sub/c.tiff")
        first.click()
        page.one("#save").click()
        page.wait("end", page.one("#done").is_displayed)
        saved(page, table, {"a.jpg": ("city",), "b.jpg": None, "sub/c.tiff": ("beach",)})
        page.one("#again").click()
        page.shows("a.jpg", "labelled")
        assert page.pressed() == ["city"]
        page.press(Keys.ENTER)
        page.shows("b.jpg", "left out")
        page.one("#previous").click()
        page.shows("a.jpg")
        page.one("#next").click()
        page.shows("b.jpg")
        page.one("#undo").click()
        page.shows("a.jpg", "labelled")


def test_the_least_certain_predictions_come_first_and_are_suggestions_until_confirmed(
    page: LabelPage, folder: Path, tmp_path: Path
) -> None:
    """The results are of a table with a column `beach` of its own, so the scores are `beach_`."""
    results = tmp_path / "results.csv"
    results.write_text(
        "name,beach,url,status,beach_,city,labels,error_code,error_detail\n"
        "a.jpg,0,x,succeeded,0.99,0.02,beach,,\n"
        "b.jpg,0,x,failed,,,,not_an_image,no\n"
        "sub/c.tiff,0,x,succeeded,0.6,0.9,beach;city,,\n"
    )
    table = tmp_path / "labels.csv"
    with labelling("label", folder, "--csv", table, "--scores", results) as (url, process):
        page.open(url, "sub/c.tiff")
        page.shows("sub/c.tiff", "suggested")
        assert page.pressed() == ["beach", "city"]
        assert [score.text for score in page.all(".score")] == ["0.60", "0.90"]
        page.press("1")
        saved(page, table, {"sub/c.tiff": ("city",)})
        page.press(Keys.ENTER)
        page.shows("a.jpg", "suggested")
        page.press(Keys.ARROW_RIGHT)
        page.shows("b.jpg", "open")
        page.press(Keys.ARROW_LEFT)
        page.shows("a.jpg", "suggested")
        page.press(Keys.ENTER)
        saved(page, table, {"sub/c.tiff": ("city",), "a.jpg": ("beach",)})
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        page.press("1")
        page.wait("error", lambda: "is the command still running?" in page.one("#error").text)
        page.shows("b.jpg", "open")  # as the answer is not saved
    assert labels_of(table) == {"sub/c.tiff": ("city",), "a.jpg": ("beach",)}


def test_wrong_predictions_of_a_report_come_worst_first_and_their_labels_can_be_corrected(
    page: LabelPage, folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("name,beach,city\na.jpg,1,0\nb.jpg,1,0\nsub/c.tiff,0,1\n")
    wrong = [
        {"name": "sub/c.tiff", "label": "beach", "truth": False, "score": 0.98},
        {"name": "b.jpg", "label": "city", "truth": False, "score": 0.7},
        {"name": "sub/c.tiff", "label": "city", "truth": True, "score": 0.4},
        {"name": "gone.jpg", "label": "city", "truth": True, "score": 0.4},
    ]
    report = tmp_path / "evaluation.json"
    report.write_text(json.dumps({"wrong_predictions": wrong}))
    with labelling("label", folder, "--csv", table, "--mistakes", report) as (url, _):
        page.open(url, "sub/c.tiff")
        assert page.one("#place").text == "1 of 2"
        assert page.pressed() == ["city"]
        assert [score.text for score in page.all(".score")] == ["0.98", "0.40"]
        page.press("1", "2", Keys.ENTER)
        page.shows("b.jpg", "labelled")
        assert [score.text for score in page.all(".score")] == ["", "0.70"]
        saved(page, table, dict.fromkeys(("a.jpg", "b.jpg", "sub/c.tiff"), ("beach",)))


def test_a_model_scores_the_pictures_before_they_are_shown(
    page: LabelPage, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.jpg").write_bytes(jpeg(1)[:2000])
    bundled = next(ARTIFACTS_PATH.glob("scenes/*"))
    artifact = shutil.copytree(bundled, tmp_path / "models" / "scenes" / "7")
    card = json.loads((artifact / "card.json").read_text())
    (artifact / "card.json").write_text(json.dumps(card | {"version": "7"}))
    monkeypatch.setenv("PIQUEUE_REGISTRY_URL", str(tmp_path / "models"))
    table = tmp_path / "labels.csv"
    with labelling("label", folder, "--csv", table, "--model", "scenes@7") as (url, process):
        page.browser.get(url)
        page.wait("pictures", lambda: page.one("#place").text == "1 of 4")
        assert len(page.all("#labels button")) == 4
        for _ in range(3):
            page.wait("suggestion", lambda: page.one("#chip").text.startswith("suggested"))
            name, suggested = page.one("#name").text, page.pressed()
            page.press(Keys.ENTER)
            page.wait("row", lambda: table.exists() and name in labels_of(table))  # noqa: B023
            assert labels_of(table)[name] == tuple(suggested)
        page.shows("broken.jpg", "open")
        page.finish()
        assert process.wait(30) == 0


def test_a_table_keeps_its_rows_and_columns_and_labelling_continues(
    page: LabelPage, folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "data.csv"
    table.write_text(
        "name,url,beach,city,split\n"
        "elsewhere.jpg,https://example.com/x,0,1,val\n"
        "a.jpg,https://example.com/a,1,0,val\n"
    )
    with labelling("label", folder, "--csv", table) as (url, process):
        page.open(url, "b.jpg")
        page.press("2")
        page.shows("b.jpg", "labelled")
        page.press(Keys.ARROW_LEFT)
        page.shows("a.jpg", "labelled")
        assert page.pressed() == ["beach"]
        page.press("1")
        page.finish()
        assert process.wait(30) == 0
    assert table.read_text().splitlines() == [
        "name,url,beach,city,split",
        "elsewhere.jpg,https://example.com/x,0,1,val",
        "a.jpg,https://example.com/a,0,0,val",
        "b.jpg,,0,1,train",
    ]


def test_a_guess_of_a_search_is_a_suggestion_until_it_is_confirmed(
    page: LabelPage, folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "data.csv"
    table.write_text("name,beach,city,guessed\na.jpg,1,0,yes\nb.jpg,0,1,yes\nsub/c.tiff,0,1,yes\n")
    with labelling("label", folder, "--csv", table) as (url, process):
        page.open(url, "a.jpg")
        page.shows("a.jpg", "suggested")
        assert page.pressed() == ["beach"]
        assert page.one("#progress-text").text == "0 labelled"
        page.press(Keys.ENTER)
        page.shows("b.jpg", "suggested")
        page.press("1")
        page.shows("b.jpg", "labelled")
        assert page.pressed() == ["beach", "city"]
        page.press("u")
        page.shows("b.jpg", "suggested")
        page.finish()
        assert process.stdout
        assert "1 of 3 pictures are labelled" in process.stdout.read()
    assert table.read_text().splitlines()[1:] == [
        "a.jpg,1,0,",
        "b.jpg,0,1,yes",
        "sub/c.tiff,0,1,yes",
    ]
    with labelling("label", folder, "--csv", table) as (url, _):
        page.open(url, "b.jpg")


def test_a_picture_that_is_left_out_stays_so_and_keeps_its_row(
    page: LabelPage, folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "data.csv"
    table.write_text("name,beach,city,guessed,url\na.jpg,1,0,yes,https://example.com/a\n")
    with labelling("label", folder, "--csv", table) as (url, process):
        page.open(url, "a.jpg")
        page.press("s")
        page.shows("b.jpg", "open")
        page.finish()
        assert process.wait(30) == 0
    assert table.read_text().splitlines() == [
        "name,beach,city,guessed,url,left_out",
        "a.jpg,1,0,yes,https://example.com/a,yes",
    ]
    with labelling("label", folder, "--csv", table) as (url, _):
        page.open(url, "b.jpg")
        page.press(Keys.ARROW_LEFT)
        page.shows("a.jpg", "left out")
        page.press("1")
        page.shows("a.jpg", "labelled")
        saved(page, table, {"a.jpg": ()})


def answer(url: str, index: int, labels: list[str] | None, shown: list[str] | None = None) -> Any:
    """Answer a picture that the page shows as `shown`; returns the change."""
    body = {"labels": labels, "shown": {"labels": shown, "skipped": False}}
    return httpx2.post(f"{url}pictures/{index}", json=body, timeout=60).raise_for_status().json()


def test_no_answer_of_two_page_servers_is_lost(folder: Path) -> None:
    table = folder / "labels.csv"
    table.write_text("name,beach,city,guessed\na.jpg,1,0,yes\nb.jpg,0,1,yes\n")
    with labelling("label", folder) as (first, _), labelling("label", folder) as (second, _):
        answer(first, 0, ["beach", "city"])
        answer(second, 1, None)
        change = answer(second, 2, [])
        assert change["conflicts"] == []
        assert labels_of(table) == {"a.jpg": ("beach", "city"), "b.jpg": None, "sub/c.tiff": ()}
        pictures = httpx2.get(f"{second}state").json()["pictures"]
        assert [one["labels"] for one in pictures] == [["beach", "city"], None, []]

        change = answer(first, 2, ["city"])
        assert change["picture"]["labels"] == []
        assert change["conflicts"] == [
            "sub/c.tiff: another window or program has answered no label, which is kept. Your "
            "answer, city, is not: give it again to replace the other one"
        ]
        assert labels_of(table)["sub/c.tiff"] == ()
        change = answer(first, 2, ["city"], shown=[])
        assert len(change["conflicts"]) == 1
        assert labels_of(table)["sub/c.tiff"] == ("city",)


def test_two_page_servers_that_save_at_once_lose_nothing(tmp_path: Path) -> None:
    count = 12
    for at in range(2 * count):
        (tmp_path / f"{at:02}.jpg").write_bytes(jpeg(1))
    where = ("label", tmp_path, "--labels", "beach,city")
    with (
        labelling(*where) as (first, _),
        labelling(*where) as (second, _),
        ThreadPoolExecutor() as pool,
    ):
        asked = [
            pool.submit(answer, url, at + offset, [label])
            for at in range(count)
            for url, offset, label in ((first, 0, "beach"), (second, count, "city"))
        ]
        assert [change.result()["conflicts"] for change in asked] == [[]] * len(asked)
    labels = labels_of(tmp_path / "labels.csv")
    assert labels == {
        f"{at:02}.jpg": ("beach",) if at < count else ("city",) for at in range(2 * count)
    }


def test_a_second_window_does_not_overwrite_what_it_does_not_show(folder: Path) -> None:
    with labelling("label", folder, "--labels", "beach,city") as (url, _):
        answer(url, 0, ["beach"])
        change = answer(url, 0, ["city"])  # by a window that still shows no answer
        assert change["picture"]["labels"] == ["beach"]
        assert "a.jpg: another window or program has answered beach" in change["conflicts"][0]
        assert labels_of(folder / "labels.csv") == {"a.jpg": ("beach",)}


def test_the_page_shows_what_another_program_has_answered(
    page: LabelPage, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = folder / "labels.csv"
    with labelling("label", folder, "--labels", "beach,city") as (url, process):
        page.open(url, "a.jpg")
        table.write_text("name,beach,city\na.jpg,1,0\nb.jpg,0,1\n")
        page.press("2", Keys.ENTER)
        conflict = "a.jpg: another window or program has answered beach"
        page.wait("conflict", lambda: conflict in page.one("#conflict-list").text)
        page.wait("progress", lambda: page.one("#progress-text").text == "2 labelled")
        page.press(Keys.ARROW_LEFT)
        page.shows("a.jpg", "labelled")
        assert page.pressed() == ["beach"]
        page.one("#dismiss").click()
        assert not page.one("#conflicts").is_displayed()
        page.press("2")
        saved(page, table, {"a.jpg": ("beach", "city"), "b.jpg": ("city",)})

        table.write_text("name;beach;city\na.jpg;1;0\n")
        page.press("1")
        page.wait("error", lambda: "separated by semicolons" in page.one("#error").text)
        page.wait("labels", lambda: page.pressed() == ["beach", "city"])
        assert table.read_text() == "name;beach;city\na.jpg;1;0\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert conflict in capfd.readouterr().err


def test_a_picture_that_cannot_be_displayed_says_why_and_can_be_left_out(
    page: LabelPage, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(jpeg(1)[:2000])
    with labelling("label", tmp_path, "--labels", "beach") as (url, _):
        page.open(url, "broken.jpg")
        page.wait(
            "reason", lambda: "cannot be displayed (truncated" in page.one("#unavailable").text
        )
        assert "leaves it out" in page.one("#unavailable").text
        page.press(Keys.ENTER)
        page.wait("end", page.one("#done").is_displayed)
        page.wait("left out", lambda: "1 left out" in page.one("#progress-text").text)
        saved(page, tmp_path / "labels.csv", {"broken.jpg": None})


def test_an_answer_that_cannot_be_saved_is_reported_and_has_no_effect(
    page: LabelPage, folder: Path, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    away.mkdir()
    with labelling("label", folder, "--labels", "beach", "--csv", away / "labels.csv") as (url, _):
        page.open(url, "a.jpg")
        away.rename(tmp_path / "gone")
        page.press("1")
        page.wait("error", lambda: "cannot be written" in page.one("#error").text)
        page.shows("a.jpg", "open")
        (tmp_path / "gone").rename(away)
        page.press("1")
        page.wait("no error", lambda: not page.one("#error").is_displayed())
        saved(page, away / "labels.csv", {"a.jpg": ("beach",)})


def test_requests_without_the_token_or_by_another_host_name_are_rejected(folder: Path) -> None:
    with labelling("label", folder, "--labels", "beach") as (url, _), httpx2.Client() as client:
        root = url.rsplit("/", 2)[0]
        shown = {"labels": None, "skipped": False}
        answer = {"labels": ["beach"], "shown": shown}
        assert client.get(f"{root}/").status_code == 403
        assert client.post(f"{root}/{'x' * 22}/pictures/0", json=answer).status_code == 403
        rebound = {"Host": f"evil.example:{httpx2.URL(url).port}"}
        assert client.get(f"{url}state", headers=rebound).status_code == 403
        assert client.post(f"{url}pictures/0", json=answer, headers=rebound).status_code == 403
        foreign = {"Origin": "http://evil.example"}
        assert client.post(f"{url}pictures/0", json=answer, headers=foreign).status_code == 403
        assert not (folder / "labels.csv").exists()
        html = client.get(url).raise_for_status()
        policy = html.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'; style-src 'self'; img-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        loaded = re.findall(r'(?:href|src)="(.+?)"', html.text)
        assert {"page/colors.css", "static/label.css", "static/main.js"} <= {*loaded}
        assert [client.get(url + path).status_code for path in loaded] == [200] * len(loaded)
        for path in ("static/main.js", "page/dom.js"):
            assert client.get(f"{root}/{'x' * 22}/{path}").status_code == 403
        picture = client.get(f"{url}pictures/0")
        refused = client.get(f"{url}../state")
        assert (picture.status_code, refused.status_code) == (200, 403)
        for sent in (html, picture, refused):
            assert sent.headers["referrer-policy"] == "no-referrer"
            assert sent.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in sent.headers["content-security-policy"]
        assert "http" not in html.text
        assert client.get(f"{url}pictures/7").status_code == 404
        assert client.get(f"{url}pictures/-1").status_code == 404
        assert client.post(f"{url}pictures/7", json=answer).status_code == 404
        assert client.post(f"{url}pictures/0", json=answer | {"labels": ["sea"]}).status_code == 422
        assert client.post(f"{url}undo").status_code == 409
        assert client.post(f"{url}pictures/0", json=answer).json()["picture"]["labels"] == ["beach"]
        assert labels_of(folder / "labels.csv") == {"a.jpg": ("beach",)}


def test_of_a_model_with_many_labels_some_are_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="has 1,000 labels: name those to answer with --labels"):
        open_table(tmp_path / "labels.csv", None, (f"kind, {number}" for number in range(1000)))
    named = 'maillot, "maillot, tank suit"'
    table = open_table(tmp_path / "labels.csv", named, ["maillot"])
    table.answer("a.jpg", ["maillot, tank suit"])
    table.save()
    again = open_table(tmp_path / "labels.csv", None, ())
    assert again.labels == ("maillot", "maillot, tank suit")
    assert again.get("a.jpg") == frozenset({"maillot, tank suit"})


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ([], "give its labels with --labels a,b,c"),
        (["--labels", "beach,beach"], "the labels must differ"),
        (["--labels", "beach,name"], "'name' cannot be a label"),
        (
            ["--labels", '"maillot, tank suit'],
            "with commas, and quote one that has",
        ),
        (["--csv", "data.csv", "--labels", "sea"], "has no column sea"),
        (["--csv", "data.csv"], "has no label: add a column of 0 and 1"),
        (["--scores", "empty.jsonl"], "has no scores of these pictures"),
        (["--scores", "data.csv"], "cannot be read as results"),
        (["--scores", "photos"], "photos: give scores as .csv or .jsonl"),
        (["--scores", "gone.csv"], "gone.csv does not exist: correct the path"),
        (["--mistakes", "data.csv"], "give the .json file that `piqueue evaluate` wrote"),
        (["--mistakes", "none.json"], "none.json has no wrong prediction: there is nothing to"),
        (["--mistakes", "other.json"], "has no wrong prediction of these pictures: give the"),
        (["--csv", "semicolons.csv"], "separated by semicolons or tabs: save it with commas"),
        (["--csv", "utf16.csv"], "is not UTF-8"),
        (["--csv", "twice.csv"], "row 3: a.jpg is listed twice"),
        (["--csv", "wrong.csv", "--labels", "beach"], "row 2: beach is 'yes'; write 0 or 1"),
    ],
)
def test_invalid_input_is_reported(
    folder: Path,
    arguments: list[str],
    printed: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("data.csv").write_text("name,url\na.jpg,x\n")
    Path("none.json").write_text('{"wrong_predictions": []}')
    other = {"name": "z.jpg", "label": "beach", "truth": True, "score": 0.1}
    Path("other.json").write_text(json.dumps({"wrong_predictions": [other]}))
    Path("twice.csv").write_text("name,beach\na.jpg,1\na.jpg,0\n")
    Path("wrong.csv").write_text("name,beach\na.jpg,yes\n")
    Path("semicolons.csv").write_text("name;beach\na.jpg;1\n")
    Path("utf16.csv").write_text("name,beach\na.jpg,1\n", encoding="utf-16")
    Path("empty.jsonl").write_text(json.dumps({"id": "z.jpg", "scores": {"beach": 1}}) + "\n")
    assert main(["label", "photos", "--no-browser", *arguments]) == 1
    assert printed in capsys.readouterr().err


def test_a_folder_without_pictures_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", str(tmp_path), "--labels", "beach"]) == 1
    assert "there are no pictures" in capsys.readouterr().err
    assert main(["label", str(tmp_path / "gone"), "--labels", "beach"]) == 1
    assert "gone does not exist: correct the path" in capsys.readouterr().err


def made(size: tuple[int, int], form: str, **options: object) -> bytes:
    target = io.BytesIO()
    Image.new("RGBA", size, (255, 0, 0, 0)).convert(
        "RGBA" if form in ("PNG", "TIFF", "WEBP") else "RGB"
    ).save(target, form, **options)
    return target.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "BMP", "GIF"])
def test_every_format_becomes_a_jpeg_of_the_same_shape(form: str) -> None:
    with Image.open(io.BytesIO(jpeg_preview(made((30, 20), form), 1600))) as shown:
        assert (shown.format, shown.size) == ("JPEG", (30, 20))


def test_large_pictures_are_scaled_down_and_transparent_ones_get_a_white_background() -> None:
    with Image.open(io.BytesIO(jpeg_preview(made((3200, 800), "PNG"), 1600))) as shown:
        assert shown.size == (1600, 400)
        assert np.asarray(shown).min() > 250
