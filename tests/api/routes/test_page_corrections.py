"""The web page: a person says which results are right, and downloads the table of labels."""

import csv
from pathlib import Path
from typing import Any

import httpx2
from msgspec import convert
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from model.training.data.table import LEFT_OUT
from piqueue import Result
from scripts.local.stack import Stack
from scripts.workshop.label_table import LabelTable
from scripts.workshop.labelling import review
from scripts.workshop.teach import _names, _read_labels
from tests.api.stored_jobs import ledger, rejected, scored, store_job
from tests.api.web_page import Page
from worker.jobs.items import ItemResult, ItemSpec
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.folder import ModelFolder
from worker.jobs.record import Job
from worker.jobs.settings import ARTIFACTS_PATH

CATALOG = ModelCatalog([ModelFolder(ARTIFACTS_PATH)], "imagenet")
IMAGENET = CATALOG.resolve(None)
# beach, city, sunset, trees
SCORES = [(0.9, 0, 0, 0), (0.8, 0, 0, 0.7), (0.1, 0.2, 0, 0), (0.6, 0, 0, 0.1), (0.7, 0.9, 0, 0)]


def spec(index: int) -> ItemSpec:
    # Names as in a folder, and one that no picture of a table can have.
    return ItemSpec("no-suffix" if index == 3 else f'sets/{index}, "new".jpg', f"https://h/{index}")


def stored(stack: Stack) -> Job:
    """Store a job of five results and a failure."""

    def result(index: int) -> ItemResult:
        return rejected() if index == len(SCORES) else scored(*SCORES[index])

    with ledger(stack.redis_url) as store:
        return store_job(store, len(SCORES) + 1, spec, result)


def press(page: Page, keys: str) -> None:
    ActionChains(page.browser).send_keys(keys).perform()


def open_first(page: Page) -> None:
    page.wait("results", lambda: page.all("#rows li"))
    page.click("#rows .name, #rows .tile")
    page.wait("picture", page.one("#picture").is_displayed)


def says(page: Page, selector: str, text: str) -> None:
    page.wait(text, lambda: page.one(selector).text == text)


def table(page: Page) -> Path:
    """Download the table of labels."""
    page.downloaded("#download-labels", "labels.csv")
    return page.downloads / "labels.csv"


def test_the_keyboard_marks_results_and_the_table_goes_on_into_label_and_teach(
    page: Page, stack: Stack, client: httpx2.Client
) -> None:
    job = stored(stack)
    page.open(f"{stack.url}/#{job.id}")
    open_first(page)
    says(page, "#correct-text", "Is this right: beach?")
    assert page.violations() == []
    press(page, "r")
    # Two labels: a person says which.
    says(page, "#correct-text", "Is this right: beach, trees?")
    press(page, "w")
    says(page, "#correct-text", "Which labels are wrong? Press their numbers.")
    press(page, "4")
    says(page, "#correct-text", "Corrected: beach")
    assert page.one("#correct-labels [data-label=trees]").get_attribute("aria-pressed") == "false"
    page.one("#next").click()
    says(page, "#correct-text", "Is this right: no label?")
    press(page, "w")
    says(page, "#correct-text", "Which labels are missing? Press their numbers.")
    press(page, "3u")
    says(page, "#correct-text", "Is this right: no label?")
    press(page, "r")
    # Of one label, no question remains.
    says(page, "#correct-text", "Is this right: beach?")
    page.one("#mark-wrong").click()
    says(page, "#correct-text", "Is this right: beach, city?")
    press(page, "r")
    assert not page.one("#correct").is_displayed(), "a failed picture has no labels"
    assert page.one("#picture-place").text == "6 of 6"
    page.one("#close-picture").click()

    counted = "5 results marked: 3 right (60.0 %), 2 corrected"
    says(page, "#marks-text", counted)
    page.browser.execute_script("document.getElementById('corrections').scrollIntoView()")
    badges = ["Right", "Corrected", "Right", "Corrected", "Right"]
    page.wait("badges", lambda: [one.text for one in page.all(".badge")] == badges)
    page.browser.refresh()
    says(page, "#marks-text", counted)
    page.one("#go-on summary").click()
    assert "kept in this browser" in page.one("#marks-kept").text
    assert f"piqueue review {job.id} --out labels.csv" in page.one("#to-label").text
    assert page.one("#to-teach").text.startswith("piqueue train labels.csv")
    assert page.violations() == []

    path = table(page)
    results = client.get(f"/jobs/{job.id}/results").json()["items"]
    names = ['sets/0, "new".jpg', 'sets/1, "new".jpg', 'sets/2, "new".jpg', f"{'5f' * 16}.jpeg"]
    names.append('sets/4, "new".jpg')
    read = LabelTable.open(path)
    assert read.labels == ("beach", "city", "sunset", "trees")
    assert {name: sorted(read.get(name) or ()) for name in read.rows} == dict(
        zip(names, [["beach"], ["beach"], [], [], ["beach", "city"]], strict=True)
    )
    assert [row["url"] for row in read.rows.values()] == [f"https://h/{n}" for n in range(5)]
    config, annotations, warnings = _read_labels(path)
    assert (len(annotations.names), warnings) == (5, ["unused columns: url"])
    assert config.targets == read.labels
    for result, name in zip(results, names, strict=False):
        row = {"id": result["id"], "url": result["source"]["url"], "sha256": "5f" * 32}
        assert {name, name.partition(".")[0]} & {*_names(row)}, "teach finds the picture"

    page.one("#undo-last").click()
    says(page, "#marks-text", "4 results marked: 2 right (50.0 %), 2 corrected")
    page.one("#forget-marks").click()
    page.browser.switch_to.alert.accept()
    page.wait("no marks", lambda: page.one("#marks-text").text.startswith("Are the results right?"))
    assert job.id not in str(marked_jobs(page))
    assert page.messages() == []


def test_a_picture_has_the_same_name_as_in_piqueue_review(
    page: Page, stack: Stack, client: httpx2.Client
) -> None:
    page.open(stack.url)
    results: list[dict[str, Any]] = [
        {
            "id": "7",
            "columns": {"name": "a/b.JPG"},
            "source": {"type": "url", "url": "https://h/7"},
        },
        {
            "id": "7",
            "columns": {"name": "b.txt"},
            "source": {"type": "url", "url": "https://h/c.jpg"},
        },
        {"id": "../x.jpg", "columns": None, "source": {"type": "upload", "filename": "y.webp"}},
        {
            "id": "a\\b.jpg",
            "columns": None,
            "source": {"type": "upload", "filename": ".hidden.jpg"},
        },
    ]
    given = client.get(f"/jobs/{stored(stack).id}/results").json()["items"][0]
    for result in results:
        whole = {**given, **result}
        script = (
            "const [result, done] = arguments;"
            "import('./static/labeltable.js').then((one) => done(one.nameInTable(result)))"
        )
        named = page.browser.execute_async_script(script, whole)
        assert named == review._name(convert(whole, Result)), result


def test_wrong_means_the_label_that_the_results_are_filtered_by(page: Page, stack: Stack) -> None:
    job = stored(stack)
    page.open(f"{stack.url}/#{job.id}?above=beach%3A0.5")
    page.wait("filter", lambda: page.one("#shown").text.startswith("4 of the 6"))
    open_first(page)
    press(page, "www")
    says(page, "#picture-place", "4 of 4")
    press(page, "w")
    says(page, "#correct-text", "Corrected: city")
    page.one("#close-picture").click()
    labels = LabelTable.open(table(page))
    assert [sorted(labels.get(name) or ()) for name in labels.rows] == [[], ["trees"], [], ["city"]]
    assert page.messages() == []


def test_a_model_of_one_label_a_picture_gives_a_table_of_one_label(
    page: Page, stack: Stack
) -> None:
    vectors = [[0.6, 0.3, *[0.0001] * 998], [0.1, 0.2, 0.6, *[0.0001] * 997], [0.001] * 1000]
    with ledger(stack.redis_url) as store:
        job = store_job(
            *(store, 3, lambda index: ItemSpec(f"{index}.jpg", None)),
            lambda index: scored(*vectors[index]),
            model=IMAGENET,
        )
    page.open(f"{stack.url}/#{job.id}")
    open_first(page)
    labels = IMAGENET.labels
    says(page, "#correct-text", f"Is this right: {labels[0]}?")
    press(page, "r")
    says(page, "#correct-text", f"Is this right: {labels[2]}?")
    press(page, "2")
    says(page, "#correct-text", f"Corrected: {labels[1]}")
    page.one("#next").click()
    press(page, "w")
    says(page, "#correct-text", "Corrected: none of these")
    page.one("#close-picture").click()
    assert not page.one("#to-label-line").is_displayed()
    path = table(page)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["label"], row[LEFT_OUT]) for row in rows] == [
        ("0.jpg", labels[0], ""),
        ("1.jpg", labels[1], ""),
        ("2.jpg", "", "yes"),
    ]
    config, annotations, _ = _read_labels(path)
    assert (config.label_col, annotations.names) == ("label", ("0.jpg", "1.jpg"))
    assert page.messages() == []


def test_of_several_models_a_choice_has_one_label_and_any_label_can_be_named(
    page: Page, stack: Stack
) -> None:
    rest = [0.0001] * 998
    vectors = [(0.9, 0, 0, 0, 0.6, 0.3, *rest), (0.1, 0, 0, 0.8, 0.2, 0.7, *rest)]
    with ledger(stack.redis_url) as store:
        job = store_job(
            *(store, 2, lambda index: ItemSpec(f"{index}.jpg", None)),
            lambda index: scored(*vectors[index]),
            model=CATALOG.resolve("scenes+imagenet"),
        )
    first, second, other = (f"imagenet/{IMAGENET.labels[at]}" for at in (0, 1, 500))
    page.open(f"{stack.url}/#{job.id}")
    open_first(page)
    says(page, "#correct-text", f"Is this right: scenes/beach, {first}?")
    assert page.violations() == []
    press(page, "r")
    says(page, "#correct-text", f"Is this right: scenes/trees, {second}?")
    press(page, "w")
    says(page, "#correct-text", "Which labels are wrong? Press their numbers.")
    press(page, "46")
    says(page, "#correct-text", f"Corrected: {first}")
    page.one("#other-label").send_keys(other, Keys.ENTER)
    says(page, "#correct-text", f"Corrected: {other}")
    pressed = page.all("#correct-labels [aria-pressed=true]")
    assert [one.text for one in pressed] == [other]
    page.one("#close-picture").click()
    labels = LabelTable.open(table(page))
    columns = ("scenes_beach", "scenes_city", "scenes_sunset", "scenes_trees")
    assert labels.labels == (*columns, first.replace("/", "_"), other.replace("/", "_"))
    assert {name: sorted(labels.get(name) or ()) for name in labels.rows} == {
        "0.jpg": [first.replace("/", "_"), "scenes_beach"],
        "1.jpg": [other.replace("/", "_")],
    }
    assert page.messages() == []


def test_marks_end_with_their_job(page: Page, stack: Stack) -> None:
    job, other = stored(stack), stored(stack)
    page.open(f"{stack.url}/#{job.id}")
    open_first(page)
    press(page, "rr")
    page.wait("marks", lambda: job.id in str(marked_jobs(page)))
    page.browser.execute_script(
        "localStorage.setItem('piqueue-marks-job_OLD', JSON.stringify({expires: 1, log: []}))"
    )
    page.browser.execute_script("location.hash = arguments[0]", other.id)
    page.wait("other job", lambda: page.one("#marks-text").text.startswith("Are the results"))
    assert not page.one("#picture").is_displayed()
    kept = str(marked_jobs(page))
    assert job.id in kept
    assert "job_OLD" not in kept
    page.browser.back()
    page.wait("marks", lambda: page.one("#marks-text").text.startswith("2 results marked"))
    page.one("#delete").click()
    page.browser.switch_to.alert.accept()
    page.wait("jobs", page.one("#jobs").is_displayed)
    assert job.id not in str(marked_jobs(page))


def marked_jobs(page: Page) -> list[str]:
    keys: list[str] = page.browser.execute_script("return Object.keys(localStorage)")
    return keys
