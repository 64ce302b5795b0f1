"""Piqueue from the command line: submit pictures, look after jobs, make API keys, serve."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from piqueue.client import Filters
from piqueue.commands import submit
from piqueue.commands.terminal import (
    CommandFailed,
    ExitCode,
    check_folder,
    connect,
    connection_options,
    hosts,
    results_format,
    run,
    summary,
    written_whole,
)
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.ledger.connection import connect as connect_redis
from worker.jobs.record import JobStatus
from worker.jobs.settings import load_settings

_RESULTS_EXAMPLES = """\
examples:
  piqueue results job_01J… -o results.parquet
  piqueue results job_01J… --status failed --format jsonl
  piqueue results job_01J… --label beach --threshold 0.9 > beaches.csv"""
_KEYS_EXAMPLES = """\
These talk to Redis, at $PIQUEUE_REDIS_URL, and not to the API.

examples:
  piqueue keys add alice
  piqueue keys remove 5f0c1d2e3a4b"""
# Loaded when they are called, for they need more than a client has installed.
_WITH_OWN_OPTIONS = {
    "collect": ("scripts.workshop.collecting.collect", "search Unsplash for photos to train on"),
    "compare": ("scripts.workshop.compare", "show where two models differ on the same pictures"),
    "doctor": ("scripts.commands.doctor", "look a Piqueue over, and say what to change"),
    "download": (
        "scripts.workshop.collecting.download",
        "download the pictures of a table of URLs",
    ),
    "evaluate": ("scripts.workshop.evaluate", "judge a model on labelled pictures"),
    "label": ("scripts.workshop.labelling.label", "label the pictures of a folder in the browser"),
    "labels": (
        "scripts.workshop.labelling.tables",
        "turn labelme's files into a table and back; split a table",
    ),
    "models": ("scripts.commands.models", "list, add, promote and roll back models"),
    "review": (
        "scripts.workshop.labelling.review",
        "label the pictures that a job was least sure of",
    ),
    "serve": ("scripts.local.serve", "run all of Piqueue on this machine"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in _WITH_OWN_OPTIONS:
        return _run_module(given[0], given[1:])
    options = _parser().parse_args(given)
    return run(options.program, lambda: int(options.command(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="piqueue", description=__doc__, epilog="piqueue COMMAND --help says more."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    api = [connection_options()]

    def add(name: str, about: str, command: Any, **more: Any) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(
            name,
            help=about,
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **more,
        )
        made.set_defaults(command=command, program=made.prog)
        return made

    about = "submit a table, a list of URLs, files or a folder, and write the results"
    submit.add_arguments(add("submit", about, submit.submit, parents=api, epilog=submit.EXAMPLES))

    one = add("status", "say where a job stands", _status, parents=api)
    one.add_argument("job")

    one = add(
        "results", "write the results of a job", _results, parents=api, epilog=_RESULTS_EXAMPLES
    )
    one.add_argument("job")
    one.add_argument("-o", "--output", type=Path, metavar="FILE", help="else to standard output")
    one.add_argument(
        "--format",
        choices=["csv", "jsonl", "parquet"],
        help="else by the suffix of FILE, else csv",
    )
    one.add_argument("--status", choices=["succeeded", "failed"])
    one.add_argument("--label", help="only pictures with this label")
    one.add_argument("--top-k", type=int, metavar="K", help="only the K best scores of each")
    one.add_argument(
        "--threshold", type=float, metavar="SCORE", help="for labels, instead of the model's own"
    )
    one.add_argument(
        "--merge", action="store_const", const="parents", help="of a retry: with its parents'"
    )

    one = add("cancel", "stop a job; the results it has stay", _cancel, parents=api)
    one.add_argument("job")

    one = add("retry", "submit the failed pictures of a job again", _retry, parents=api)
    one.add_argument("job")
    one.add_argument(
        "--only",
        choices=["failed", "retryable"],
        default="failed",
        help="retryable: leave out what cannot succeed, such as files that are no pictures",
    )

    one = add("jobs", "list your jobs, newest first", _jobs, parents=api)
    one.add_argument("--status", choices=list(JobStatus), type=JobStatus)
    one.add_argument("--limit", type=int, default=20, metavar="COUNT", help="(%(default)s)")

    one = add("delete", "stop a job and erase its pictures and results", _delete, parents=api)
    one.add_argument("job")

    keys = add("keys", "make, list and remove API keys", None, epilog=_KEYS_EXAMPLES)
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    action = actions.add_parser("add", help="make a key, which is shown this once")
    action.add_argument("name", help="whose it is, for people")
    action.set_defaults(command=_add_key)
    actions.add_parser("list", help="list the owners of keys").set_defaults(command=_list_keys)
    action = actions.add_parser("remove", help="make the key of an owner worthless")
    action.add_argument("owner", help="as `keys list` shows it")
    action.set_defaults(command=_remove_key)

    for name, (_, about) in _WITH_OWN_OPTIONS.items():
        commands.add_parser(name, help=about, add_help=False)
    return parser


def _run_module(name: str, arguments: Sequence[str]) -> int:
    """Run a command that has a module, and options, of its own."""
    try:
        module = import_module(_WITH_OWN_OPTIONS[name][0])
    except ModuleNotFoundError as error:
        print(
            f"piqueue {name} needs {error.name}, which is not installed: "
            "pip install 'piqueue[local,train]'",
            file=sys.stderr,
        )
        return ExitCode.NOTHING_SUCCEEDED
    return int(module.main(arguments))


def _status(options: argparse.Namespace) -> int:
    with connect(options) as client:
        job = client.job(options.job)
    print("\n".join([summary(job), *hosts(job)]))
    return 0


def _results(options: argparse.Namespace) -> int:
    form = results_format(options.output, options.format)
    if options.output:
        check_folder(options.output)
    filters: Filters = {}
    for name in Filters.__optional_keys__:
        if (value := getattr(options, name)) is not None:
            filters[name] = value  # type: ignore[literal-required]
    with connect(options) as client:
        if options.output:
            with written_whole(options.output) as file:
                client.download(options.job, file, form, **filters)
        else:
            # By way of a file, so that a connection that breaks leaves nothing half or twice.
            with tempfile.TemporaryFile() as file:
                client.download(options.job, file, form, **filters)
                file.seek(0)
                shutil.copyfileobj(file, sys.stdout.buffer)
    return 0


def _cancel(options: argparse.Namespace) -> int:
    with connect(options) as client:
        print(summary(client.cancel(options.job)))
    return 0


def _retry(options: argparse.Namespace) -> int:
    with connect(options) as client:
        job = client.retry(options.job, options.only)
    print(f"{summary(job)}\nto see it through: piqueue submit --resume {job.id}")
    return 0


def _jobs(options: argparse.Namespace) -> int:
    with connect(options) as client:
        for job in islice(client.jobs(options.status), options.limit):
            print(f"{job.created_at:%Y-%m-%d %H:%M:%S}Z  {summary(job)}  {job.name or ''}".rstrip())
    return 0


def _delete(options: argparse.Namespace) -> int:
    with connect(options) as client:
        client.delete(options.job)
    return 0


def _keys() -> KeyStore:
    return KeyStore(connect_redis(load_settings().redis_url, retries=1))


def _add_key(options: argparse.Namespace) -> int:
    print(_keys().add(options.name))
    print("This key is shown this once: only its hash is stored.", file=sys.stderr)
    return 0


def _list_keys(_options: argparse.Namespace) -> int:
    for key in _keys().all():
        print(f"{key.owner}  {key.name}")
    return 0


def _remove_key(options: argparse.Namespace) -> int:
    if not _keys().remove(options.owner):
        raise CommandFailed(f"there is no owner {options.owner}: see piqueue keys list")
    return 0


if __name__ == "__main__":
    sys.exit(main())
