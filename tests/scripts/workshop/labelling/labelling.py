"""Drives the labelling page and the commands that serve it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from axe_core_python.selenium import Axe

from scripts.local.stack import ROOT
from tests.browser import Tab


class LabelPage(Tab):
    """The labelling page in a browser."""

    def open(self, url: str, name: str) -> None:
        self.browser.get(url)
        self.shows(name)

    def press(self, *keys: str) -> None:
        self.one("body").send_keys(*keys)

    def shows(self, name: str, chip: str | None = None) -> None:
        self.wait(name, lambda: self.one("#name").text == name)
        if chip:
            self.wait(chip, lambda: self.one("#chip").text == chip)

    def pressed(self) -> list[str]:
        buttons = self.all("#labels [aria-pressed=true]")
        return [re.sub(r"[\d.]|\s", "", button.text) for button in buttons]

    def picture_size(self) -> list[int]:
        picture = self.one("#picture")
        # Until the next picture is there, a browser may give the size of the one before.
        self.wait(
            "picture",
            lambda: picture.get_property("complete") and picture.get_property("naturalWidth"),
        )
        return [int(str(picture.get_property(f"natural{side}"))) for side in ("Width", "Height")]

    def violations(self) -> list[str]:
        """Name the rules of accessibility that the page breaks as it is now."""
        return [one["id"] for one in Axe().run(self.browser)["violations"]]

    def finish(self) -> None:
        self.one("#finish").click()
        self.wait("end", lambda: self.one("#done-title").text == "Saved")


@contextmanager
def served(
    command: Sequence[str], folder: Path = ROOT, env: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a command that serves the page; yields the page's address and the process."""
    with subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", process.stdout.readline())
            assert found
            yield found[0], process
        finally:
            process.kill()


def labelling(
    *arguments: str | Path, folder: Path = ROOT
) -> AbstractContextManager[tuple[str, subprocess.Popen[str]]]:
    """Run `piqueue label` or `piqueue review`; yields the page's address and the process."""
    program = [sys.executable, "-m", "piqueue"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return served([*program, *map(str, arguments), "--no-browser"], folder, env)
