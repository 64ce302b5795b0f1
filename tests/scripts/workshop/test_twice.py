"""The collecting and labelling commands of docs/workshop.md, run again after a person's work."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx2
import pytest

from scripts.commands.__main__ import main
from scripts.local.stack import ROOT
from tests.pictures import jpeg
from tests.scripts.workshop.collecting.unsplash_site import KEY, Shot, UnsplashSite
from tests.scripts.workshop.labelling.labelling import labelling

TEXT = (ROOT / "docs" / "workshop.md").read_text()
BOTH = Shot("both", jpeg(9))  # is not found until the second run of `piqueue collect`
FOUND = {
    "beach": [Shot(f"beach{at}", jpeg(at)) for at in range(6)],
    "city": [Shot(f"city{at}", jpeg(10 + at)) for at in range(6)],
    "desk": [Shot(f"desk{at}", jpeg(20 + at)) for at in range(2)],
}
# What a person answers on the page; None leaves the picture out.
ANSWERS = {
    "beach0.jpg": {"beach"},
    "beach1.jpg": {"beach", "city"},
    "beach2.jpg": set(),
    "city0.jpg": {"beach"},
    "desk0.jpg": None,
}


@pytest.fixture(autouse=True)
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[UnsplashSite]:
    """A fake of the Unsplash API; the commands run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    with UnsplashSite(FOUND) as running:
        monkeypatch.setenv("PIQUEUE_UNSPLASH_URL", running.url(""))
        monkeypatch.setenv("PIQUEUE_UNSPLASH_KEY", KEY)
        monkeypatch.setenv("PIQUEUE_FETCH_ALLOW_NETWORKS", "127.0.0.1/32")
        yield running


def collect() -> None:
    words = ("--keyword", "beach", "--keyword", "city", "--other", "desk", "--negative", "drawing")
    main(["collect", "--source", "unsplash", *words, "--count", "4", "--out", "data.csv"])


def collect_more() -> None:
    """A larger count, a new label, and keywords that now find pictures with answers."""
    words = ("--keyword", "beach", "--keyword", "city", "--keyword", "sunset")
    assert main(
        ["collect", "--source", "unsplash", *words, "--count", "6", "--out", "data.csv"]
    ) in (0, 2)


def download() -> None:
    assert main(["download", "data.csv", "--kept", "labels.csv"]) == 0


def label(answers: Mapping[str, set[str] | None] | None = None) -> None:
    with labelling("label", "images", "--csv", "labels.csv", folder=Path.cwd()) as (url, process):
        state = httpx2.get(f"{url}state").json()
        for index, picture in enumerate(state["pictures"]):
            if picture["name"] in (answers or {}):
                labels = (answers or {})[picture["name"]]
                shown = {"labels": picture["labels"], "skipped": picture["skipped"]}
                body = {"labels": None if labels is None else sorted(labels), "shown": shown}
                httpx2.post(f"{url}pictures/{index}", json=body).raise_for_status()
        httpx2.post(f"{url}finish").raise_for_status()
        assert process.wait(30) == 0


def to_labelme() -> None:
    assert main(["labels", "to-labelme", "labels.csv", "images"]) in (0, 2)


def from_labelme() -> None:
    assert main(["labels", "from-labelme", "images", "labels.csv"]) in (0, 2)


def split() -> None:
    assert main(["labels", "split", "labels.csv"]) == 0


COMMANDS: dict[str, Callable[[], None]] = {
    "collect": collect,
    "download": download,
    "label": label,
    "labels to-labelme": to_labelme,
    "labels from-labelme": from_labelme,
    "labels split": split,
}


def rows_of(path: str) -> dict[str, dict[str, str]]:
    with Path(path).open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def answers_in(path: str) -> dict[str, set[str] | None]:
    """The pictures whose answer for beach and city is a person's."""
    return {
        name: None if row.get("left_out") else {one for one in ("beach", "city") if row[one] == "1"}
        for name, row in rows_of(path).items()
        if row.get("left_out") or not {"yes", "beach", "city"} & set(row["guessed"].split(";"))
    }


def test_every_command_of_the_document_is_run_twice_here() -> None:
    part = TEXT[TEXT.index("## Collect") : TEXT.index("## Train")]
    named = re.findall(r"piqueue (labels [a-z-]+|[a-z]+)", part)
    assert set(named) - {"evaluate", "compare"} == set(COMMANDS)


def test_no_command_loses_an_answer_when_it_is_run_again(site: UnsplashSite) -> None:
    collect()
    download()
    label(ANSWERS)
    split()
    before = rows_of("labels.csv")
    assert answers_in("labels.csv") == ANSWERS

    site.found["city"] = [FOUND["beach"][0], FOUND["desk"][0], *FOUND["city"]]
    site.found["sunset"] = [FOUND["beach"][1], FOUND["beach"][4], BOTH]
    for again in (*COMMANDS.values(), collect_more, *list(COMMANDS.values())[1:]):
        again()
        assert answers_in("labels.csv") == ANSWERS, again.__name__
        now = rows_of("labels.csv")
        for name, row in before.items():
            assert now[name]["split"] == row["split"], again.__name__
            assert now[name]["url"] == row["url"], again.__name__
    assert now["beach1.jpg"]["sunset"] == "1"
    assert now["beach1.jpg"]["guessed"] == "sunset"
    assert now["both.jpg"]["split"] == "train"
    assert Path("images/both.jpg").read_bytes() == BOTH.payload


def test_answers_in_the_collected_table_survive_the_next_search(site: UnsplashSite) -> None:
    collect()
    download()
    Path("data.csv").replace("labels.csv")
    label(ANSWERS)
    Path("labels.csv").replace("data.csv")
    site.found["city"] = [FOUND["beach"][0], FOUND["desk"][0], *FOUND["city"]]
    collect_more()
    assert answers_in("data.csv") == ANSWERS
    download()
    assert answers_in("labels.csv") == ANSWERS


def test_answers_given_in_labelme_survive_the_next_export() -> None:
    collect()
    download()
    to_labelme()
    file = Path("images/city1.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"flags": {"beach": True, "city": False}}))
    to_labelme()
    assert json.loads(file.read_text())["flags"] == {"beach": True, "city": False}
    from_labelme()
    assert answers_in("labels.csv") == {"city1.jpg": {"beach"}}
