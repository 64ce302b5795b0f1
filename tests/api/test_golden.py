"""The whole service gives the sample photos the scores that the engines give them by themselves."""

from pathlib import Path

import httpx2
import pytest

from tests.api.polling import wait_done
from tests.golden import TOLERANCE, golden_scores, sample_photos


def test_the_service_gives_the_golden_scores(client: httpx2.Client) -> None:
    golden = golden_scores()
    files = [("files", (photo.name, photo.read_bytes())) for photo in sample_photos()]
    job = wait_done(client, client.post("/jobs", files=files).json())
    assert [result["id"] for result in job["results"]] == list(golden)
    for result in job["results"]:
        assert result["scores"] == pytest.approx(golden[result["id"]], abs=TOLERANCE), result["id"]


@pytest.mark.parametrize("photo", sample_photos(), ids=lambda photo: photo.name)
def test_one_picture_at_once_gets_them_too(client: httpx2.Client, photo: Path) -> None:
    scores = client.post("/scorefile/", files={"file": (photo.name, photo.read_bytes())}).json()
    assert scores == pytest.approx(golden_scores()[photo.name], abs=TOLERANCE)
