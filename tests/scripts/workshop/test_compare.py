"""`piqueue compare` with two models of known scores, and its report in a browser."""

import json
from pathlib import Path

import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver import Chrome

from scripts.commands.__main__ import main
from tests.browser import Tab
from tests.scripts.workshop.known_scores import loads_nothing, score_of, write_model, write_photos

# Keras passes NumPy an array type that NumPy 2.4 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Red, blue, labelled red, labelled blue; at brightness 160 the score is 0.78.
PHOTOS = {
    "a.png": (240, 20, 1, 0),
    "b.png": (160, 230, 0, 1),
    "c.png": (165, 30, 1, 0),
    "d.png": (150, 20, 0, 0),
    "e.png": (20, 10, 0, 0),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models; the second has a higher threshold for red."""
    folder = tmp_path_factory.mktemp("models") / "colours"
    return write_model(folder / "1"), write_model(folder / "2", thresholds=(0.9, 0.5))


def test_changed_predictions_are_found_and_compared_with_the_labels(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_photos(tmp_path, PHOTOS)
    output = tmp_path / "comparison.html"
    assert main(["compare", *map(str, models), str(table), "-o", str(output)]) == 0
    metrics = json.loads(output.with_suffix(".json").read_text())
    assert (metrics["pictures"], metrics["agreement"]) == (5, 0.7)
    assert metrics["pictures_that_agree"] == 0.4
    red, blue = metrics["labels"]["red"], metrics["labels"]["blue"]
    assert (red["agreement"], red["predicted_by_a"], red["predicted_by_b"]) == (0.4, 4, 1)
    assert (red["fixed"], red["broken"]) == (2, 1)
    assert (red["f1_a"], red["f1_b"]) == (round(4 / 6, 4), round(2 / 3, 4))
    assert (blue["agreement"], blue["fixed"], blue["broken"]) == (1, 0, 0)
    accuracy = metrics["changes"]["accuracy"]
    assert (accuracy["a"], accuracy["b"]) == (0.8, 0.9)
    low, high = accuracy["interval_95"]
    assert low < 0 < accuracy["b"] - accuracy["a"] < high, "five pictures do not show it"
    assert metrics["changes"]["macro_average_precision"]["interval_95"] == [0, 0], "paired draws"
    assert f"{low:+.3f} to {high:+.3f}" in output.read_text()
    assert sorted((one["name"], one["truth"]) for one in metrics["changed_predictions"]) == [
        ("b.png", False),
        ("c.png", True),
        ("d.png", False),
    ]
    for one in metrics["changed_predictions"]:
        assert (one["label"], one["predicted_by"]) == ("red", "a")
        assert one["a"] == one["b"] == pytest.approx(score_of(PHOTOS[one["name"]][0]), abs=0.003)
    assert "agree on 70.0% of the predictions for 5 pictures; 3 differ" in capsys.readouterr().out


def test_the_report_shows_the_changed_predictions_in_a_browser(
    models: tuple[Path, Path], tmp_path: Path, browser: Chrome
) -> None:
    table = write_photos(tmp_path, PHOTOS)
    output = tmp_path / "comparison.html"
    assert main(["compare", *map(str, models), str(table), "-o", str(output)]) == 0
    assert loads_nothing(output.read_text())
    tab = Tab(browser)
    browser.get(output.as_uri())
    assert browser.title == "colours@1 and colours@2"
    facts = {
        card.find_element("css selector", ".file").text: card.text for card in tab.all(".card")
    }
    assert facts.keys() == {"b.png", "c.png", "d.png"}
    assert "not labelled red: colours@2 is right" in facts["b.png"]
    assert facts["c.png"].endswith("labelled red: colours@1 is right")
    assert all(image.get_property("naturalWidth") == 40 for image in tab.all(".card img"))
    assert tab.messages() == []
    assert [one["id"] for one in Axe().run(browser)["violations"]] == []


def test_pictures_need_no_labels(models: tuple[Path, Path], tmp_path: Path) -> None:
    write_photos(tmp_path, PHOTOS)
    output = tmp_path / "comparison.html"
    assert main(["compare", *map(str, models), str(tmp_path / "images"), "-o", str(output)]) == 0
    metrics = json.loads(output.with_suffix(".json").read_text())
    assert "fixed" not in metrics["labels"]["red"]
    assert metrics["changes"] is None
    assert [one["truth"] for one in metrics["changed_predictions"]] == [None] * 3
    assert "Metrics by label" not in output.read_text()


def test_models_without_a_label_in_common_are_rejected(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_model(tmp_path / "others/1", labels=("cat", "dog"))
    assert main(["compare", str(models[0]), str(other), str(tmp_path)]) == 1
    assert "have no label in common" in capsys.readouterr().err
