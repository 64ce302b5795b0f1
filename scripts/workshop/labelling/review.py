"""Labels the pictures that a job was least sure of, for the next training."""

import argparse
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

from api.schemas import ModelCardOut, ResultOut
from piqueue.commands.progress import tell
from piqueue.commands.sources import PICTURE_SUFFIXES
from piqueue.commands.terminal import CommandFailed, connect, connection_options, run
from scripts.workshop.collecting.download import fetch_pictures, is_safe_name
from scripts.workshop.labelling.label import add_table_options, open_table, sit
from scripts.workshop.labelling.predictions_source import Opinion, opinion
from scripts.workshop.labelling.session import Labelling, Picture
from worker.jobs.settings import load_settings

_LISTED = 10

EXAMPLES = """\
examples:
  piqueue review job_01J… --out labels.csv --folder images     into what you train on
  piqueue review job_01J… --folder photos                      uploads: where they came from

Pictures that came by URL are downloaded into the folder. Uploads are gone once they are scored:
they, and pictures in S3, are looked for in the folder by the names they were submitted with."""


@dataclass(frozen=True)
class _Candidate:
    name: str
    url: str | None
    sha256: str
    opinion: Opinion


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue review`; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="piqueue review",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[connection_options()],
    )
    parser.add_argument("job")
    parser.add_argument(
        "--folder", type=Path, help="where the pictures are, or go; else one named as the job"
    )
    add_table_options(parser, "--out", "else FOLDER/labels.csv; made, or added to")
    parser.add_argument(
        "--count", type=int, default=50, metavar="N", help="pictures to look at (%(default)s)"
    )
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: review(options))


def review(options: argparse.Namespace) -> int:
    """Find the pictures, show them and take the answers; gives the exit code.

    Raises:
        CommandFailed: the job is not done, or none of its pictures can be had.
    """
    folder: Path = options.folder or Path(options.job)
    with connect(options) as client:
        job = client.job(options.job)
        if not job.done:
            raise CommandFailed(
                f"{job.id} is {job.status}: see it through first, piqueue submit --resume {job.id}"
            )
        card = next((card for card in client.models() if card.sha256 == job.model.sha256), None)
        table = open_table(
            options.table or folder / "labels.csv", options.labels, card.labels if card else ()
        )
        results = client.results(job.id, status="succeeded")
        candidates = _candidates(results, card, table.rows)
        unsure = nsmallest(options.count, candidates, key=lambda one: one.opinion.margin)
    if not unsure:
        raise CommandFailed(f"{job.id} has no picture that is scored and not in {table.path} yet")
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _found(folder, unsure)
    if not pictures:
        raise CommandFailed("there is nothing left to label")
    return sit(Labelling(table, pictures), browser=not options.no_browser)


def _candidates(
    results: Iterable[ResultOut], card: ModelCardOut | None, labelled: Collection[str]
) -> Iterator[_Candidate]:
    """What can be labelled, each picture once, and has not been yet."""
    thresholds = card.thresholds if card else {}
    seen: set[str] = set()
    for result in results:
        if not result.scores or result.image is None:
            continue
        name = _name(result)
        if name not in seen and name not in labelled:
            seen.add(name)
            sure = opinion(result.scores, result.labels or (), thresholds)
            yield _Candidate(name, result.source.url, result.image.sha256, sure)


def _name(result: ResultOut) -> str:
    """The name the picture has in a table: that of its row, its id, or else its own hash."""
    uploaded = [result.source.filename] if result.source.url is None else []
    for name in ((result.columns or {}).get("name"), result.id, *uploaded):
        if name and is_safe_name(name) and Path(name).suffix.lower() in PICTURE_SUFFIXES:
            return name
    assert result.image
    return f"{result.image.sha256[:32]}.{result.image.format}"


def _found(folder: Path, candidates: Sequence[_Candidate]) -> list[Picture]:
    """Those whose pictures are in the folder, or come there; says what becomes of the others."""
    names = [one.name for one in candidates]
    gone = fetch_pictures(folder, names, [one.url or "" for one in candidates], load_settings())
    pictures, lost, out_of_reach_count = [], [], 0
    for at, one in enumerate(candidates):
        path = folder / one.name
        if at in gone and (one.url is None or one.url.startswith("s3://")):
            out_of_reach_count += 1
        elif at in gone:
            lost.append(f"{one.name}: {gone[at].detail}")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != one.sha256:
            lost.append(f"{one.name}: is not the picture any more that was scored")
        else:
            pictures.append(Picture(one.name, path, one.opinion))
    if out_of_reach_count:
        tell(
            f"{out_of_reach_count} of {len(candidates)} pictures were uploaded or are in S3, and "
            f"are not in {folder}. Piqueue keeps no uploads once they are scored: "
            "name the folder that has them, --folder FOLDER"
        )
    if lost:
        tell(f"{len(lost)} of {len(candidates)} pictures cannot be had any more:")
        for line in lost[:_LISTED]:
            tell(f"  {line}")
    return pictures
