"""Opens a page for labelling the pictures of a job with the least certain predictions."""

import argparse
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from os.path import isfile
from pathlib import Path

from piqueue import Model, Result
from piqueue.commands.pictures import PICTURE_SUFFIXES
from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed, connect, connection_options, run
from scripts.commands.parser import command_parser
from scripts.workshop.collecting.download import fetch_pictures, is_safe_name
from scripts.workshop.labelling.label import add_table_options, open_table, run_session
from scripts.workshop.labelling.predictions_source import Prediction
from scripts.workshop.labelling.session import LabelSession, Picture
from scripts.workshop.labelling.teaching import Teaching
from worker.jobs.settings import load_settings

_LISTED = 10

EXAMPLES = """\
examples:
  piqueue review job_01J… --out labels.csv --folder images     extends the table for training
  piqueue review job_01J… --folder photos                      uploads: the folder they are in

Pictures from URLs are downloaded into the folder. Uploads, which Piqueue deletes once they are
scored, and pictures in S3 must be in the folder, under the names they were submitted with."""


@dataclass(frozen=True)
class _Candidate:
    name: str
    url: str | None
    sha256: str
    prediction: Prediction

    @property
    def is_downloadable(self) -> bool:
        return self.url is not None and not self.url.startswith("s3://")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue review` and return its exit code."""
    parser = command_parser("review", __doc__, EXAMPLES, connection_options())
    parser.add_argument("job", help="id of a finished job")
    about = "folder of the pictures (default: the id of the job)"
    parser.add_argument("--folder", type=Path, help=about)
    add_table_options(parser, "--out")
    about = "pictures to label (default: %(default)s)"
    parser.add_argument("--count", type=int, default=50, metavar="N", help=about)
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: review(options))


def review(options: argparse.Namespace) -> int:
    """Find the pictures, show them and save the answers; returns the exit code.

    Raises:
        CommandFailed: the job is not finished, or none of its pictures is available.
    """
    folder: Path = options.folder or Path(options.job)
    with connect(options) as client:
        job = client.job(options.job)
        if not job.done:
            raise CommandFailed(
                f"{job.id} is {job.status}: finish it with piqueue submit --resume {job.id}"
            )
        if not job.counts.succeeded:
            raise CommandFailed(
                f"{job.id} has no scored pictures: read why with piqueue results {job.id}"
            )
        card = next((card for card in client.models() if card.sha256 == job.model.sha256), None)
        table = open_table(
            options.table or folder / "labels.csv", options.labels, card.labels if card else ()
        )
        results = client.results(job.id, status="succeeded")
        candidates = _candidates(results, card, table.rows)
        uncertain = nsmallest(options.count, candidates, key=lambda one: one.prediction.margin)
    if not uncertain:
        raise CommandFailed(
            f"all scored pictures of {job.id} are in {table.path} already: give another job"
        )
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _available(folder, uncertain)
    if not pictures:
        raise CommandFailed(
            f"none of the {len(uncertain)} pictures is available: copy them to {folder}"
        )
    teaching = Teaching(job.id, options.url, options.api_key) if job.keep_features else None
    session = LabelSession(table, pictures)
    return run_session(session, browser=not options.no_browser, teaching=teaching)


def _candidates(
    results: Iterable[Result], card: Model | None, labelled: Collection[str]
) -> Iterator[_Candidate]:
    """The scored pictures that are not labelled yet, each once."""
    thresholds = card.thresholds if card else {}
    seen: set[str] = set()
    for result in results:
        if not result.scores or result.image is None:
            continue
        name = _name(result)
        if name not in seen and name not in labelled:
            seen.add(name)
            prediction = Prediction.of(result.scores, result.labels or (), thresholds)
            yield _Candidate(name, result.source.url, result.image.sha256, prediction)


def _name(result: Result) -> str:
    """The picture's name in the table: that of its row, its id, its file name, or its hash."""
    uploaded = [result.source.filename] if result.source.url is None else []
    for name in ((result.columns or {}).get("name"), result.id, *uploaded):
        if name and is_safe_name(name) and Path(name).suffix.lower() in PICTURE_SUFFIXES:
            return name
    assert result.image
    return f"{result.image.sha256[:32]}.{result.image.format}"


def _available(folder: Path, candidates: Sequence[_Candidate]) -> list[Picture]:
    """The pictures in the folder, after downloading; reports those that are not available."""
    # The progress of downloads does not count pictures that cannot be downloaded.
    wanted = [
        one
        for one in candidates
        if one.is_downloadable or isfile(folder / one.name)  # noqa: PTH113 - no error if too long
    ]
    names = [one.name for one in wanted]
    missing = fetch_pictures(folder, names, [one.url or "" for one in wanted], load_settings())
    pictures, lost, not_downloadable_count = [], [], len(candidates) - len(wanted)
    for index, one in enumerate(wanted):
        path = folder / one.name
        if index in missing and not one.is_downloadable:
            not_downloadable_count += 1
        elif index in missing:
            lost.append(f"{one.name}: {missing[index].detail}")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != one.sha256:
            lost.append(f"{one.name}: differs from the picture that was scored")
        else:
            pictures.append(Picture(one.name, path, one.prediction))
    if not_downloadable_count:
        tell(
            f"{not_downloadable_count} of {len(candidates)} pictures were uploaded or are in S3, "
            f"and are not in {folder}: give the folder that has them with --folder FOLDER"
        )
    if lost:
        tell(f"{len(lost)} of {len(candidates)} pictures are not available any more:")
        for line in lost[:_LISTED]:
            tell(f"  {line}")
    return pictures
