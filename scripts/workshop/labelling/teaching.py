"""Teaches a model from the labelling page, with `piqueue teach` in a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from piqueue.commands.terminal import CommandFailed


@dataclass(frozen=True)
class Teaching:
    """The job that keeps the features of the labelled pictures, and where its API is.

    Without `url` or `api_key`, those of the environment apply.
    """

    job: str
    url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def teach(self, name: str, table: Path) -> str:
        """Teach the model `name` the labels of a table; returns what the command prints.

        Raises:
            CommandFailed: the labels or the job do not allow it; the text is that of the command.
        """
        given = {"PIQUEUE_URL": self.url, "PIQUEUE_API_KEY": self.api_key}
        done = subprocess.run(
            [sys.executable, "-m", "piqueue", "teach", name, str(table), "--from", self.job],
            env=os.environ | {key: value for key, value in given.items() if value},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            ended = f"piqueue teach ended with {done.returncode}: run it in a terminal"
            raise CommandFailed(done.stderr.strip() or ended)
        # LiteRT reports there which of its parts it uses.
        told = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]
        return "\n".join([*told, done.stdout.strip()])
