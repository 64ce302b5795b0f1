"""From nothing to scores: starts Piqueue on this machine, scores photos as files and by URL."""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from api.schemas import ItemIn, JobOut, ResultOut
from piqueue.client import Client, PiqueueApiError
from piqueue.commands.sources import find_pictures, named
from scripts.local.photo_server import PhotoServer
from scripts.local.serve import SAMPLES, how_to_submit, stop_on_signals, wait_for_signal
from scripts.local.stack import ROOT, Stack
from scripts.local.supervised_process import StartFailed

_FOLDER = ROOT / ".piqueue" / "demo"
_MOST_UPLOADS = 20  # more photos than these are scored by URL only
_STUCK_S = 120.0  # a chunk whose worker died starts again within 40 s
_POLL_S = 0.1


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code is 0 only if every photo got its scores."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "photos", nargs="*", type=Path, help="files or folders to score instead of the samples"
    )
    parser.add_argument("--keep", action="store_true", help="go on serving until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (%(default)s)")
    chosen = parser.parse_args(arguments)
    stop_on_signals()
    # The photos by URL come from a server on loopback, where no worker would fetch otherwise.
    env = {"PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32"}
    try:
        photos = named(find_photos(chosen.photos or [SAMPLES]))
        started = time.monotonic()
        print("Starting Redis, the API and a worker ...", flush=True)
        with Stack(_FOLDER, port=chosen.port, env=env) as stack:
            print(f"Ready at {stack.url} after {time.monotonic() - started:.1f} s\n", flush=True)
            all_succeeded = demonstrate(stack.url, photos)
            print(f"\n{_how_to_go_on(stack.url, chosen.keep)}", flush=True)
            if chosen.keep:
                with suppress(KeyboardInterrupt):
                    wait_for_signal()
    except (DemoFailed, PiqueueApiError, StartFailed, OSError) as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if all_succeeded else 1


def find_photos(paths: Iterable[Path]) -> Iterator[Path]:
    """Each file named, and the pictures in each folder named and below it.

    Raises:
        DemoFailed: a path does not exist, or a folder holds no picture.
    """
    for path in paths:
        if path.is_file():
            yield path
            continue
        found = find_pictures(path)
        if not found:
            raise DemoFailed(f"{path}: {'no pictures there' if path.is_dir() else 'not found'}")
        yield from found


def demonstrate(url: str, photos: Mapping[str, Path]) -> bool:
    """Score the photos, as files unless they are many and by URL; whether all succeeded.

    Raises:
        PiqueueApiError: the job of URLs is refused.
        DemoFailed: a job stands still.
    """
    results: list[ResultOut] = []
    refused = False
    with Client(url) as client:
        if len(photos) <= _MOST_UPLOADS:
            try:
                job = client.submit_files(photos)
            except PiqueueApiError as error:
                refused = True
                print("The upload was refused:", error, *error.problems, sep="\n", file=sys.stderr)
            else:
                results += _follow(client, job, "files")
        with PhotoServer(photos) as server:
            items = [ItemIn(id=name, url=server.url_of(name)) for name in photos]
            results += _follow(client, client.submit_items(items), "URLs")
    print(f"\n{table(results)}")
    return not refused and all(result.status == "succeeded" for result in results)


def table(results: Sequence[ResultOut]) -> str:
    """One line a result: item, source, a score a label, and the labels or what went wrong."""
    labels = next((list(result.scores) for result in results if result.scores), [])
    rows = [["item", "source", *labels, "labels"]]
    for result in results:
        cells, last = ["-"] * len(labels), ""
        if result.scores:
            cells = [f"{result.scores[label]:.3f}" for label in labels]
            last = ", ".join(result.labels or ()) or "none"
        elif result.error:
            last = f"{result.error.code}: {result.error.detail}"
        rows.append([result.id, result.source.type, *cells, last])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _follow(client: Client, job: JobOut, what: str) -> Iterator[ResultOut]:
    """Show a job's progress until it is done; its results in order."""
    shown, shown_at = -1, time.monotonic()
    for latest in client.follow(job.id, every_s=_POLL_S):
        total = latest.counts.total
        finished = total - latest.counts.waiting - latest.counts.running
        if finished != shown:
            shown, shown_at = finished, time.monotonic()
            print(f"{job.id}: {finished} of {total} {what}", flush=True)
        if time.monotonic() - shown_at > _STUCK_S:
            raise DemoFailed(f"{job.id} stands still: see the logs in {_FOLDER}")
    return client.results(job.id)


def _how_to_go_on(url: str, keep: bool) -> str:
    if keep:
        return f"Still serving; documentation: {url}/docs\n{how_to_submit(url)}\nCtrl-C stops it."
    return """Your own photos:   scripts/demo FOLDER
Keep it serving:   scripts/demo --keep
A server to stay:  scripts/serve"""


if __name__ == "__main__":
    sys.exit(main())
