"""Starts Piqueue on this machine and scores photos as files and by URL."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from piqueue import Client, Item, Job, PiqueueApiError, Result
from piqueue.commands import terminal
from piqueue.commands.pictures import find_pictures, named
from piqueue.commands.terminal import Parser
from scripts.local.image_server import ImageServer
from scripts.local.serve import SAMPLES, how_to_submit, port, stop_on_signals, wait_for_signal
from scripts.local.stack import ROOT, Stack
from scripts.local.supervised_process import StartFailed

_FOLDER = ROOT / ".piqueue" / "demo"
_FEW = 20  # more photos than this are scored by URL only, and so many are shown
_STALLED_S = 120.0  # a chunk whose worker died starts again within 40 s
_POLL_S = 0.1


class DemoFailed(Exception):
    """The demo cannot continue; the text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code is 0 only if every photo was scored."""
    parser = Parser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "photos",
        nargs="*",
        type=Path,
        help="files or folders to score instead of the sample photos",
    )
    parser.add_argument("--keep", action="store_true", help="keep the server running until Ctrl-C")
    parser.add_argument(
        "--port", type=port, default=0, help="port of the API, 0: a free one (default: %(default)s)"
    )
    chosen = parser.parse_args(arguments)
    stop_on_signals()
    # The URLs are on loopback, from where workers do not fetch by default.
    env = {"PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32"}
    try:
        photos = named(find_photos(chosen.photos or [SAMPLES]))
        started = time.monotonic()
        print("Starting Redis, the API and a worker ...", flush=True)
        with Stack(_FOLDER, port=chosen.port, env=env) as stack:
            print(f"Ready at {stack.url} after {time.monotonic() - started:.1f} s\n", flush=True)
            all_succeeded = demonstrate(stack.url, photos)
            print(f"\n{_next_steps(stack.url, chosen.keep)}", flush=True)
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
    """Find the named files, and the pictures in the named folders and below them.

    Raises:
        DemoFailed: a path does not exist, or a folder holds no picture.
    """
    for path in paths:
        if path.is_file():
            yield path
            continue
        if not path.is_dir():
            raise DemoFailed(f"{path}: not found: name another file or folder")
        found = find_pictures(path)
        if not found:
            raise DemoFailed(f"{path}: no pictures there: name another file or folder")
        yield from found


def demonstrate(url: str, photos: Mapping[str, Path]) -> bool:
    """Score the photos by URL, and as files too unless they are many; whether all succeeded.

    Raises:
        PiqueueApiError: the job of URLs is refused.
        DemoFailed: a job stalls.
    """
    results: list[Result] = []
    refused, are_few = False, len(photos) <= _FEW
    with Client(url) as client:
        if are_few:
            try:
                job = client.submit_files(photos)
            except PiqueueApiError as error:
                refused = True
                print("The upload was refused:", error, *error.problems, sep="\n", file=sys.stderr)
            else:
                results += _follow(client, job, "files")

        def payload_of(name: str) -> bytes | None:
            return photos[name].read_bytes() if name in photos else None

        with ImageServer(payload_of) as server:
            items = [Item(id=name, url=server.url_of(name)) for name in photos]
            job = client.submit_items(items)
            results += _follow(client, job, "URLs" if are_few else "pictures")
    if are_few:
        print(f"\n{table(results)}")
    else:
        more = results[_FEW:]
        failed_count = sum(result.status != "succeeded" for result in more)
        print(f"\n{table(results[:_FEW])}\nand {len(more)} more, of which {failed_count} failed")
        print("All of them, while this server runs (--keep):")
        print(f"  curl '{url}/jobs/{job.id}/results?format=csv'")
    return not refused and all(result.status == "succeeded" for result in results)


def table(results: Sequence[Result]) -> str:
    """One line for each result: item, source, scores by label, and the labels or the error."""
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
    return "\n".join(terminal.table(rows))


def _follow(client: Client, job: Job, what: str) -> Iterator[Result]:
    """Show a job's progress until it is done; gives its results in order."""
    shown, shown_at = -1, time.monotonic()
    for latest in client.follow(job.id, every_s=_POLL_S):
        total = latest.counts.total
        finished = total - latest.counts.waiting - latest.counts.running
        if finished != shown:
            shown, shown_at = finished, time.monotonic()
            print(f"{job.id}: {finished} of {total} {what}", flush=True)
        if time.monotonic() - shown_at > _STALLED_S:
            raise DemoFailed(f"{job.id} makes no progress: see the logs in {_FOLDER}")
    return client.results(job.id)


def _next_steps(url: str, keep: bool) -> str:
    if keep:
        return f"Still serving; documentation: {url}/docs\n{how_to_submit(url)}\nCtrl-C stops it."
    return """Your own photos:   scripts/demo FOLDER
Keep it serving:   scripts/demo --keep
A lasting server:  scripts/serve"""


if __name__ == "__main__":
    sys.exit(main())
