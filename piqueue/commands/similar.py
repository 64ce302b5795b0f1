"""Lists the pictures of a job that are alike."""

import argparse
from collections.abc import Iterator

import msgspec

from piqueue.client import Client
from piqueue.commands.terminal import PATIENCE_S, CommandFailed, connect
from piqueue.types import DuplicateGroup, Member, Similar, Source

EXAMPLES = """\
The job must keep features (piqueue submit --keep-features). The first request compares all its
pictures, which takes seconds, or minutes for a million.
examples:
  piqueue similar job_01J… photos/beach.jpg
  piqueue similar job_01J… 17 --limit 5 --json"""
DUPLICATES_EXAMPLES = """\
The job must keep features (piqueue submit --keep-features).
examples:
  piqueue duplicates job_01J…
  piqueue duplicates job_01J… --json | jq -r '.[].items[1:][].id' > copies.txt"""
_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `similar`."""
    parser.add_argument("job")
    about = "a picture of the job: its index, or its id, file name or URL"
    parser.add_argument("item", help=about)
    about = "default: %(default)s, which is the most"
    parser.add_argument("--limit", type=int, default=20, metavar="COUNT", help=about)


def similar(options: argparse.Namespace) -> int:
    """Print the pictures that are most like one."""
    with connect(options, PATIENCE_S) as client:
        index = _index(client, options.job, options.item)
        found = client.similar(options.job, index, options.limit)
    if options.json:
        print(msgspec.json.encode(found).decode())
        return 0
    for one in found:
        print(f"{one.similarity:.3f}  {_name(one)}")
    return 0


def duplicates(options: argparse.Namespace) -> int:
    """Print the groups of pictures that are nearly the same."""
    with connect(options, PATIENCE_S) as client:
        found = client.duplicates(options.job)
        if options.json:
            print(msgspec.json.encode(list(found)).decode())
            return 0
        print("\n\n".join(map(_lines, found)) or "no pictures are nearly the same")
    return 0


def _index(client: Client, job_id: str, item: str) -> int:
    """The index of an item that is given by index or name."""
    if item.isdecimal():
        return int(item)
    for index, names in _named(client, job_id, item):
        if item in names:
            return index
    raise CommandFailed(
        f"{item}: no picture of {job_id} has this id, file name or URL: give one that "
        "`piqueue results` writes, or an index"
    )


def _named(client: Client, job_id: str, text: str) -> Iterator[tuple[int, tuple[str | None, ...]]]:
    for result in client.results(job_id, search=text):
        yield result.index, (result.id, result.source.filename, result.source.url)


def _lines(group: DuplicateGroup) -> str:
    names = [_name(one) for one in group.items[:_SHOWN]]
    if group.count > len(names):
        names.append(f"and {group.count - len(names)} more")
    return "\n".join([f"{group.count} pictures", *(f"  {name}" for name in names)])


def _name(one: Similar | Member) -> str:
    """The id of a picture or, if that is only its index, its file name or URL."""
    source: Source = one.source
    plain = one.id == str(one.index)
    return (source.filename or source.url or one.id) if plain else one.id
