"""What the benchmarks of one run share: a folder, how much to measure, the pictures, a stack."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp

from scripts.benchmarks.pictures import write_pictures
from scripts.benchmarks.processes import serving
from scripts.local.stack import Stack

ENV = {"PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32"}


@dataclass(frozen=True)
class Scale:
    """How much to measure; the defaults are the least that gives reliable figures."""

    rounds: int = 5
    pictures: int = 2000
    tutorial: int = 300
    starts: int = 7
    requests: int = 300
    rows: int = 1_000_000
    scored_rows: int = 100_000


QUICK = Scale(
    rounds=1, pictures=200, tutorial=50, starts=2, requests=40, rows=50_000, scored_rows=10_000
)


@dataclass
class BenchmarkRun:
    """One run; all its files are in `folder`."""

    folder: Path
    scale: Scale

    @cached_property
    def pictures(self) -> Path:
        """The folder of the pictures, which are made once."""
        folder = self.new_folder("pictures")
        write_pictures(self.scale.pictures, folder)
        return folder

    def new_folder(self, name: str) -> Path:
        """Make an empty folder."""
        return Path(mkdtemp(prefix=f"{name}-", dir=self.folder))

    @contextmanager
    def image_server(self) -> Iterator[list[str]]:
        """Serve the pictures while the block runs; gives their URLs."""
        log_path = self.new_folder("image-server") / "log"
        with serving(log_path, "scripts.benchmarks.pictures", str(self.pictures)) as url:
            yield [f"{url}/{index}.jpg" for index in range(self.scale.pictures)]

    def stack(self, workers: int = 1) -> Stack:
        """Give a Piqueue whose workers may fetch from the image server."""
        return Stack(self.new_folder("stack"), workers=workers, env=ENV)
