"""The web page: sample photos and the cards of models."""

import json
from pathlib import Path

import httpx2
import pytest

from api.routes.page import SAMPLES
from scripts.local.stack import Stack
from tests.api.web_page import Page
from worker.jobs.models.artifact import CARD_NAME, Artifact
from worker.jobs.settings import ARTIFACTS_PATH

SCENES = json.loads((ARTIFACTS_PATH / "scenes" / "5" / CARD_NAME).read_text())


def test_one_click_scores_the_sample_photos(
    page: Page, stack: Stack, client: httpx2.Client
) -> None:
    page.open(stack.url)
    page.click("[value=csv]")
    page.click("[value=files]")
    page.wait("samples", page.one("#try-samples").is_displayed)
    page.one("#try-samples").click()
    page.wait("done job", lambda: page.one("#chip").text == "Done")
    assert page.one("#job-title").text == "Sample photos"
    names = sorted(path.name for path in SAMPLES.iterdir() if path.suffix in (".jpg", ".webp"))
    page.wait("pictures", lambda: len(page.all("#rows img")) == len(names) == 8)
    assert sorted(one.text for one in page.all("#rows .name")) == names
    job = client.get(f"/jobs/{page.job_id()}").json()
    assert job["keep_features"], "for piqueue teach"
    page.click("#rows .tile")
    page.wait("features of the job", lambda: page.all("#picture .similar"))
    page.click("#close-picture")
    page.click("#again")
    credit = page.one("#samples a").get_property("href")
    assert "CC BY-SA" in client.get(str(credit)).raise_for_status().text
    assert page.messages() == []


def test_the_page_offers_no_samples_that_are_not_installed(
    page: Page, stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("api.routes.page.SAMPLES", tmp_path)
    from api.routes.page import samples

    assert samples() == []
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/samples"]})
    try:
        page.open(stack.url)
        page.wait("form", page.one("#about-model").is_displayed)
        assert not page.one("#samples").is_displayed()
    finally:
        page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})


def test_the_card_of_a_model_is_a_click_away(page: Page, stack: Stack) -> None:
    page.open(stack.url)
    page.choose("#model", "scenes@5")
    page.one("#about-model").click()
    page.wait("figures", lambda: page.all("#model-card td"))
    text = page.one("#model-card").text
    assert page.one("#model-title").text == "scenes@5"
    measured = SCENES["metrics"]["validation"]
    assert f"{100 * measured['macro_average_precision']:.1f} %" in text
    row = page.one("#model-card tbody tr").text
    figures = (measured["average_precision_beach"], measured["binary_accuracy_beach"])
    assert row == " ".join(("beach 0.50", *(f"{100 * one:.1f} %" for one in figures)))
    assert all(source["name"] in text for source in SCENES["sources"])
    assert SCENES["notes"] in text
    assert page.violations() == []
    page.one("#close-model").click()
    page.choose("#model", "imagenet@2")
    page.one("#about-model").click()
    page.wait_for_text("#model-body", "1,000 labels")
    assert "Its card has no figures" in page.one("#model-card").text
    # An address of another view closes it.
    page.browser.execute_script("location.hash = 'jobs'")
    page.wait("jobs", page.one("#jobs").is_displayed)
    assert not page.one("#model-card").is_displayed()
    assert page.messages() == []


def test_a_model_is_read_with_its_figures_and_sources(client: httpx2.Client) -> None:
    listed = next(one for one in client.get("/models").json() if one["name"] == "scenes")
    for reference in ("scenes", "scenes@5"):
        read = client.get(f"/models/{reference}").raise_for_status().json()
        assert {name: read[name] for name in listed} == listed
        assert (read["metrics"], read["notes"]) == (SCENES["metrics"], SCENES["notes"])
        assert read["sources"] == SCENES["sources"]
        assert (read["input_size"], read["activation"]) == ([224, 224], "sigmoid")
    for unknown in ("scenes@99", "scenes+imagenet", "no"):
        answer = client.get(f"/models/{unknown}")
        assert (answer.status_code, answer.json()["code"]) == (422, "model_not_found")


def test_a_card_whose_figures_are_no_figures_is_ignored() -> None:
    card = {**SCENES, "metrics": {"validation": {"macro_average_precision": float("nan")}}}
    read = Artifact.read(json.dumps(card).encode(), "scenes/5")
    assert read is not None
    assert json.loads(read.details.model_dump_json())["metrics"]["validation"] == {
        "macro_average_precision": None
    }
    assert Artifact.read(json.dumps({**SCENES, "metrics": [1]}).encode(), "scenes/5") is None
