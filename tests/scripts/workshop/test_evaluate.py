"""`piqueue evaluate` with a model of known scores, and its report in a real browser."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver import Chrome

from model.artifact.card import Calibration
from scripts.commands.__main__ import main
from scripts.workshop.reports.metrics import evaluate_scores
from tests.browser import Tab
from tests.model.onnx_networks import write_colours_onnx
from tests.scripts.workshop.known_scores import loads_nothing, score_of, write_model, write_photos

# Keras passes NumPy an array type that NumPy 2.4 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Red, blue, labelled red, labelled blue.
PHOTOS = {
    "a.png": (230, 20, 1, 0),
    "b.png": (200, 220, 1, 1),
    "c.png": (40, 240, 0, 1),
    "d.png": (240, 30, 0, 0),  # red is predicted, wrongly and with a high score
    "e.png": (100, 210, 1, 1),  # red is missed
    "f.png": (30, 10, 0, 0),
    "t.png": (10, 10, 1, 1),  # of the train split, with wrong labels
}
HOSTILE = "<img src=x onerror=document.title='owned'>.png"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("models") / "colours/4")
    rows = [
        "fold,stage,epoch,loss,accuracy,held_out_loss,held_out_accuracy,seconds,data_wait_share"
    ]
    rows += [
        f"{fold},fine_tuning,{epoch},{0.5 / (epoch + 1)},0.9,{0.6 / (epoch + 1)},0.8,3,0.0123"
        for fold in range(2)
        for epoch in range(4)
    ]
    (folder / "training.csv").write_text("\n".join([*rows, "1,head,0,0.7,0.5,,,1,0.001"]))
    return folder


def evaluated(folder: Path, *arguments: object) -> dict[str, Any]:
    """Run the command; returns the metrics that it wrote."""
    output = folder / "report.html"
    assert main(["evaluate", *map(str, arguments), "-o", str(output)]) == 0
    metrics: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return metrics


def test_every_metric_is_that_of_the_served_scores(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_photos(tmp_path, PHOTOS)
    metrics = evaluated(tmp_path, model, table, "--split", "val")
    assert metrics["model"]["version"] == "4"
    assert metrics["pictures"] == 6
    red, blue = metrics["labels"]["red"], metrics["labels"]["blue"]
    assert (red["precision"], red["recall"], red["f1"]) == (0.6667, 0.6667, 0.6667)
    assert (blue["precision"], blue["recall"], blue["f1"]) == (1, 1, 1)
    # By score: d (wrong), a, b, e among the six.
    assert red["average_precision"] == round((1 / 2 + 2 / 3 + 3 / 4) / 3, 4)
    assert blue["average_precision"] == 1
    assert metrics["overall"]["accuracy"] == round(10 / 12, 4)
    assert metrics["overall"]["exact_match"] == round(4 / 6, 4)
    intervals = metrics["overall"]["intervals_95"]
    assert intervals.keys() == {
        *("macro_average_precision", "accuracy", "expected_calibration_error"),
    }
    low, high = intervals["accuracy"]
    assert 0.5 <= low < metrics["overall"]["accuracy"] < high == 1
    assert f"{low:.3f} to 1.000; of all predictions" in (tmp_path / "report.html").read_text()
    assert metrics["confusion"] == {
        "red": {"red": 1, "blue": 0},
        "blue": {"red": 0, "blue": 0},
        "": {"red": 1, "blue": 0},
    }
    first, second = metrics["wrong_predictions"]
    assert (first["name"], first["label"], first["truth"]) == ("d.png", "red", False)
    assert first["score"] == pytest.approx(score_of(240), abs=0.002)
    assert (second["name"], second["truth"]) == ("e.png", True)
    assert [row[1:] for row in red["curve"]][50] == [0.6667, 0.6667, 0.6667]
    told = capsys.readouterr().out
    assert "colours@4 on 6 pictures: macro average precision 0.82" in told
    correct = f"piqueue label {table.parent}/images --csv {table} --mistakes {tmp_path}/report.json"
    assert f"2 pictures have wrong predictions. To correct wrong labels:\n{correct}\n" in told
    assert correct in (tmp_path / "report.html").read_text()


def test_a_table_with_both_splits_says_that_training_pictures_are_measured(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_photos(tmp_path, PHOTOS)
    evaluated(tmp_path, model, table, "--split", "val")
    assert "of the split train" not in capsys.readouterr().err
    assert evaluated(tmp_path, model, table)["pictures"] == 7
    assert "pictures of the split train are among these" in capsys.readouterr().err


def test_a_model_of_onnx_needs_no_option(tmp_path: Path) -> None:
    table = write_photos(tmp_path, PHOTOS)
    folder = tmp_path / "colours/1"
    write_colours_onnx(folder)
    assert evaluated(tmp_path, folder, table)["labels"]["blue"]["precision"] == 1


def test_labels_that_nobody_confirmed_are_measured_only_on_request(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_photos(tmp_path, PHOTOS)
    header, *rows = table.read_text().splitlines()
    marks = dict(zip(PHOTOS, ["", "yes,", "red,", "sea,", ",yes"], strict=False))
    rows = [f"{row},{marks.get(row.split(',')[0]) or ','}" for row in rows]
    table.write_text("\n".join([f"{header},guessed,left_out", *rows]))
    metrics = evaluated(tmp_path, model, table, "--split", "val")
    assert metrics["pictures"] == 3  # a, d and f
    assert "2 rows with guessed labels are not used: confirm the" in capsys.readouterr().err
    metrics = evaluated(tmp_path, model, table, "--split", "val", "--use-guessed")
    assert metrics["pictures"] == 5
    assert metrics["source"] == "labels.csv, split val, 2 rows with guessed labels"

    table.write_text("name,red,guessed\na.png,1,yes\n")
    assert main(["evaluate", str(model), str(table)]) == 1
    assert "1 rows with guessed labels are not used" in capsys.readouterr().err


def test_scores_are_evaluated_with_the_calibration_of_the_card(tmp_path: Path) -> None:
    calibration = Calibration(slopes=(0.5, 0.5), offsets=(-1.0, 0.0)).model_dump()
    folder = write_model(tmp_path / "models/colours/1", calibration=calibration)
    table = write_photos(tmp_path / "photos", {"a.png": (230, 20, 0, 1), "b.png": (230, 20, 1, 0)})
    metrics = evaluated(tmp_path, folder, table)
    (wrong,) = [one for one in metrics["wrong_predictions"] if one["label"] == "red"]
    logit = 10 * 230 / 255 - 5
    assert wrong["score"] == pytest.approx(1 / (1 + math.exp(1 - logit / 2)), abs=0.002)


def test_the_report_is_one_page_that_loads_nothing_in_a_browser(
    model: Path, tmp_path: Path, browser: Chrome
) -> None:
    table = write_photos(tmp_path, PHOTOS | {HOSTILE: (240, 20, 0, 1)})
    (tmp_path / "images/b.png").write_bytes(b"no picture")
    evaluated(tmp_path, model, table)
    assert loads_nothing((tmp_path / "report.html").read_text())
    tab = Tab(browser)
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.title == "colours@4"
    assert [one.text for one in tab.all("h2")] == [
        "Uncertainty",
        "Metrics by label",
        "Calibration",
        "Thresholds",
        "Confusion of labels",
        "Training",
        "Wrong predictions",
        "Not scored",
    ]
    assert len(tab.all("svg.chart")) == 3 + 2 + 2
    assert len(tab.all("polyline.line")) == 2 * 3 + 2 * 4
    assert "at most 1.2% of its time" in tab.one("main").text
    images = tab.all(".card img")
    assert len(images) == 6
    for image in images:
        assert image.get_property("naturalWidth") == 40
        assert image.get_property("naturalHeight") == 20
    assert HOSTILE in {name.text for name in tab.all(".card .file")}
    assert "b.png" in tab.all("section")[-1].text
    small = images[0].size["width"]
    tab.one(".card summary").click()
    assert images[0].size["width"] > 2 * small, "a click enlarges a picture"
    wide = browser.execute_script("return document.documentElement.scrollWidth > innerWidth")
    assert wide is False
    assert tab.messages() == []
    assert [one["id"] for one in Axe().run(browser)["violations"]] == []


def test_a_training_of_one_epoch_is_drawn_as_points(tmp_path: Path, browser: Chrome) -> None:
    model = write_model(tmp_path / "models/colours/5")
    (model / "training.csv").write_text(
        "fold,stage,epoch,loss,accuracy,held_out_loss,held_out_accuracy,seconds,data_wait_share\n"
        "0,head,0,0.9,0.4,,,0.005,0.4\n"
        "0,fine_tuning,0,0.5,0.9,0.6,0.8,3,0.0123\n"
    )
    evaluated(tmp_path, model, write_photos(tmp_path, PHOTOS))
    tab = Tab(browser)
    browser.get((tmp_path / "report.html").as_uri())
    points = tab.all("circle.point title")
    assert [point.get_property("textContent") for point in points] == [
        "fit 0, held out: 0.6",
        "fit 0, trained on: 0.5",
        "fit 0, held out: 0.8",
        "fit 0, trained on: 0.9",
    ]
    assert "at most 1.2% of its time" in tab.one("main").text


def test_a_folder_for_each_label_replaces_a_table(model: Path, tmp_path: Path) -> None:
    table = write_photos(tmp_path, PHOTOS)
    photos = tmp_path / "photos"
    for label, names in {"red": "ad", "blue": "c", "other": "f"}.items():
        (photos / label).mkdir(parents=True)
        for name in names:
            (table.parent / f"images/{name}.png").rename(photos / label / f"{name}.png")
    metrics = evaluated(tmp_path, model, photos)
    assert metrics["pictures"] == 4
    assert metrics["wrong_predictions"] == []
    assert metrics["labels"]["red"]["positives"] == 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,green\na.png,1\n", "has none of the labels red, blue"),
        ("name,red\na.png,2\n", "a.png: red is '2'; write 0 or 1"),
        ("name,red\nb.png,1\n", "b.png is not beside it; give --images FOLDER"),
        ("name,red\n", "there are no rows"),
        ("picture,red\na.png,1\n", "has no column name"),
    ],
)
def test_an_invalid_table_is_rejected_with_the_reason(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, message: str
) -> None:
    write_photos(tmp_path, {"a.png": (1, 1, 0, 0)}).write_text(table)
    assert main(["evaluate", str(model), str(tmp_path / "labels.csv")]) == 1
    assert message in capsys.readouterr().err


def test_an_unknown_model_is_rejected_with_the_list_of_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_photos(tmp_path, PHOTOS)
    assert main(["evaluate", "cats@7", str(table)]) == 1
    assert "no model 'cats@7': use one of " in capsys.readouterr().err


def test_a_label_without_pictures_has_no_average_precision() -> None:
    truth = np.array([[True, False], [False, False]])
    metrics = evaluate_scores(truth, np.array([[0.9, 0.1], [0.2, 0.7]]), [0.5, 0.5], ["a", "b"])
    assert metrics["labels"]["b"]["average_precision"] is None
    assert metrics["labels"]["b"]["recall"] is None
    assert metrics["labels"]["b"]["precision"] == 0
    assert metrics["overall"]["macro_average_precision"] == 1


def test_a_report_replaces_no_table(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("name,red\na.png,1\n")
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(model), str(table), "-o", str(table)])
    assert stopped.value.code != 0
    assert f"'{table}' must end in .html" in capsys.readouterr().err
    assert table.read_text() == "name,red\na.png,1\n"
