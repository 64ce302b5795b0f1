"""The documentation site: built strictly, complete, and without anything from elsewhere."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import piqueue
from piqueue.cli import SERVER_COMMANDS
from scripts.docs_site import CONFIG, build, write_pages


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site"))


def pages_of(nav: list[Any]) -> list[str]:
    """The files of a navigation, in their order."""
    found: list[str] = []
    for entry in nav:
        value = entry if isinstance(entry, str) else next(iter(entry.values()))
        found += [value] if isinstance(value, str) else pages_of(value)
    return found


def test_every_page_is_in_the_navigation(site: Path) -> None:
    listed = pages_of(tomllib.loads(CONFIG.read_text())["project"]["nav"])
    pages = site.parent / "pages"
    assert sorted(listed) == sorted(str(path.relative_to(pages)) for path in pages.rglob("*.md"))
    assert all((site / page).with_suffix(".html").is_file() for page in listed)


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"?(https?:)?//[^\s>]*")
    for page in site.rglob("*.html"):
        assert not loaded.search(page.read_text()), page.name


def test_the_reference_has_every_name_command_and_route(site: Path) -> None:
    client = (site / "reference" / "client.html").read_text()
    assert all(f'id="piqueue.{name}"' in client for name in piqueue.__all__)
    assert "Request[" not in client
    commands = (site / "reference" / "commands.html").read_text()
    for name in ("submit", "keys-add", "models-promote", *SERVER_COMMANDS):
        assert f'id="piqueue-{name}"' in commands, name
    assert '"/jobs/{job_id}/results"' in (site / "reference" / "openapi.json").read_text()


def test_a_wrong_link_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def with_wrong_link(folder: Path) -> None:
        write_pages(folder)
        page = folder / "pages" / "docs" / "s3.md"
        page.write_text(page.read_text() + "\n[nowhere](nowhere.md)\n")

    monkeypatch.setattr("scripts.docs_site.write_pages", with_wrong_link)
    with pytest.raises(SystemExit, match="1"):
        build(tmp_path)
    assert "page does not exist" in capfd.readouterr().err
