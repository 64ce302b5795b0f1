"""Runs a complete Piqueue on this machine until Ctrl-C or SIGTERM."""

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from piqueue.commands.terminal import Parser
from scripts.local.embedded_redis import REDIS_MEMORY
from scripts.local.stack import ROOT, Stack
from scripts.local.supervised_process import StartFailed

SAMPLES = ROOT / "scripts" / "samples"
# A clone keeps its data in its own folder; an installed Piqueue in the home folder.
DATA = (ROOT if (ROOT / "pyproject.toml").exists() else Path.home()) / ".piqueue" / "serve"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; the exit code is 0 after Ctrl-C or SIGTERM, 1 if a process does not start."""
    parser = Parser(
        prog="piqueue serve",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=port, default=8000, help="0: a free one")
    parser.add_argument("--workers", type=positive, default=1, help="worker processes")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of data and logs")
    parser.add_argument(
        "--redis-memory", default=REDIS_MEMORY, help="memory for jobs and results, such as 4gb"
    )
    chosen = parser.parse_args(arguments)
    stop_on_signals()
    try:
        given = os.environ.get("PIQUEUE_REGISTRY_URL")
        registry = given or str(chosen.data.absolute() / "models")
        with Stack(
            chosen.data,
            env={} if given else {"PIQUEUE_REGISTRY_URL": registry},
            host=chosen.host,
            port=chosen.port,
            workers=chosen.workers,
            redis_memory=chosen.redis_memory,
        ) as stack:
            print(f"Piqueue listens on {stack.url}; documentation: {stack.url}/docs")
            print(f"Web page: {stack.url}/")
            print(f"Data and logs: {chosen.data}\n{how_to_submit(stack.url)}")
            print("Create API keys, add models or check this installation:")
            print(f"  export PIQUEUE_REDIS_URL={stack.redis_url}")
            print(f"  export PIQUEUE_STORAGE_URL={shlex.quote(stack.storage_url)}")
            print(f"  export PIQUEUE_REGISTRY_URL={shlex.quote(registry)}")
            print(f"  piqueue keys add NAME\n  piqueue doctor --url {stack.url}")
            print("Ctrl-C stops it.", flush=True)
            wait_for_signal()
    except (StartFailed, OSError) as error:
        print(f"piqueue serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
    return 0


def stop_on_signals() -> None:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored after `scripts/serve &`
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def wait_for_signal() -> None:
    """Block until Ctrl-C or a signal of `stop_on_signals` raises KeyboardInterrupt."""
    while True:
        time.sleep(1)  # pause() could miss a signal that arrives just before it


def positive(text: str) -> int:
    """Parse an argument that is a count."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def port(text: str) -> int:
    """Parse an argument that is a port, or 0 for a free one."""
    number = int(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError("must be 0 to 65535")
    return number


def how_to_submit(url: str) -> str:
    """Commands that submit a job to `url`, to copy."""
    photo = min(SAMPLES.glob("*.jpg"), default="PHOTO.jpg")
    return f"""Submit photos as files or by URL, then read the job:
  curl -F files=@{photo} {url}/jobs
  curl -H 'Content-Type: application/json' -d '{{"urls": ["https://..."]}}' {url}/jobs
  curl {url}/jobs/JOB_ID"""


if __name__ == "__main__":
    sys.exit(main())
