"""`piqueue compare`, on two models whose every score is known, and its report in a browser."""

import json
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from piqueue.cli import main
from tests.browser import Tab
from tests.scripts.workshop.judged import loads_nothing, score_of, write_model, write_photos

# Keras hands NumPy an array type that NumPy 2.4 finds old-fashioned.
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
    """The second needs more to call a picture red."""
    folder = tmp_path_factory.mktemp("models") / "colours"
    return write_model(folder / "1"), write_model(folder / "2", thresholds=(0.9, 0.5))


def test_flips_are_found_and_told_right_from_wrong(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_photos(tmp_path, PHOTOS)
    output = tmp_path / "compared.html"
    assert main(["compare", *map(str, models), str(table), "-o", str(output)]) == 0
    figures = json.loads(output.with_suffix(".json").read_text())
    assert (figures["pictures"], figures["agreement"]) == (5, 0.7)
    assert figures["pictures_that_agree"] == 0.4
    red, blue = figures["labels"]["red"], figures["labels"]["blue"]
    assert (red["agreement"], red["yes_a"], red["yes_b"]) == (0.4, 4, 1)
    assert (red["mended"], red["broken"]) == (2, 1)
    assert (red["f1_a"], red["f1_b"]) == (round(4 / 6, 4), round(2 / 3, 4))
    assert (blue["agreement"], blue["mended"], blue["broken"]) == (1, 0, 0)
    assert sorted((flip["name"], flip["truth"]) for flip in figures["flips"]) == [
        ("b.png", False),
        ("c.png", True),
        ("d.png", False),
    ]
    for flip in figures["flips"]:
        assert (flip["label"], flip["given_by"]) == ("red", "a")
        assert flip["a"] == flip["b"] == pytest.approx(score_of(PHOTOS[flip["name"]][0]), abs=0.003)
    assert "agree on 70.0% of the answers about 5 pictures; 3 differ" in capsys.readouterr().out


def test_the_report_shows_the_flips_in_a_browser(
    models: tuple[Path, Path], tmp_path: Path, browser: Chrome
) -> None:
    table = write_photos(tmp_path, PHOTOS)
    output = tmp_path / "compared.html"
    assert main(["compare", *map(str, models), str(table), "-o", str(output)]) == 0
    assert loads_nothing(output.read_text())
    tab = Tab(browser)
    browser.get(output.as_uri())
    assert browser.title == "colours@1 and colours@2"
    told = {card.find_element("css selector", ".file").text: card.text for card in tab.all(".card")}
    assert told.keys() == {"b.png", "c.png", "d.png"}
    assert "not labelled red: colours@2 is right" in told["b.png"]
    assert told["c.png"].endswith("labelled red: colours@1 is right")
    assert all(image.get_property("naturalWidth") == 40 for image in tab.all(".card img"))
    assert tab.complaints() == []


def test_pictures_need_no_labels(models: tuple[Path, Path], tmp_path: Path) -> None:
    write_photos(tmp_path, PHOTOS)
    output = tmp_path / "compared.html"
    assert main(["compare", *map(str, models), str(tmp_path / "images"), "-o", str(output)]) == 0
    figures = json.loads(output.with_suffix(".json").read_text())
    assert "mended" not in figures["labels"]["red"]
    assert [flip["truth"] for flip in figures["flips"]] == [None] * 3
    assert "How good they are" not in output.read_text()


def test_models_without_a_label_in_common_are_refused(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_model(tmp_path / "others/1", labels=("cat", "dog"))
    assert main(["compare", str(models[0]), str(other), str(tmp_path)]) == 1
    assert "have no label in common" in capsys.readouterr().err
