"""What benchmarks share: a folder, a scale, pictures, subprocesses and their resource usage."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp

from scripts.benchmarks.support.pictures import write_pictures
from scripts.local.embedded_redis import REDIS_MEMORY
from scripts.local.stack import ROOT, Stack
from scripts.local.supervised_process import SupervisedProcess

START_DEADLINE_S = 120
# The peers, and decoding and inference without a service, run the file of this variant too.
ENV = {"PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32", "PIQUEUE_MODEL_VARIANT": "float"}


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
    photos: int = 1000
    labelled: int = 10_000
    seconds: float = 20


QUICK = Scale(
    rounds=1,
    pictures=200,
    tutorial=50,
    starts=2,
    requests=40,
    rows=50_000,
    scored_rows=10_000,
    photos=20,
    labelled=100,
    seconds=3,
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
        with serving(log_path, "scripts.benchmarks.support.pictures", str(self.pictures)) as url:
            yield [f"{url}/{index}.jpg" for index in range(self.scale.pictures)]

    def stack(
        self, workers: int = 1, redis_memory: str = REDIS_MEMORY, variant: str = "float"
    ) -> Stack:
        """Give a Piqueue whose workers may fetch from the image server."""
        folder, env = self.new_folder("stack"), ENV | {"PIQUEUE_MODEL_VARIANT": variant}
        return Stack(folder, workers=workers, env=env, redis_memory=redis_memory)


@contextmanager
def serving(log_path: Path, module: str, *arguments: str) -> Iterator[str]:
    """Run a module that prints its port once it is ready, while the block runs; gives its URL."""
    process = SupervisedProcess([sys.executable, "-m", module, *arguments], log_path, cwd=ROOT)
    process.start()
    try:
        port = process.wait_until(
            lambda: re.search(r"^(\d+)$", log_path.read_text(), re.MULTILINE),
            START_DEADLINE_S,
            module,
        )
        yield f"http://127.0.0.1:{port[1]}"
    finally:
        process.stop(grace_s=5)


def resident_mb(pid: int, field: str = "VmRSS") -> float:
    """Read the resident memory of a process in MB, or its peak for the field "VmHWM"."""
    status = Path(f"/proc/{pid}/status").read_text()
    value = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert value
    return int(value[1]) * 1024 / 1e6


def cpu_s(pid: int) -> float:
    """Read the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
