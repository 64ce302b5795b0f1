"""Piqueue scores pictures in bulk: submit pictures, manage jobs, run and train the service."""

import argparse
import os
import shutil
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from textwrap import wrap
from typing import Any, NoReturn, get_args

import msgspec

from piqueue.commands import results, similar, submit
from piqueue.commands.progress import note
from piqueue.commands.terminal import (
    CommandFailed,
    Parser,
    check_folder,
    connect,
    connection_options,
    hosts,
    run,
    summary,
    written_whole,
)
from piqueue.types import Job, JobStatus

_REPORT_EXAMPLES = """\
examples:
  piqueue report job_01J…                     writes job_01J….html
  piqueue report job_01J… -o catalogue.html"""
# Run by the server's `scripts.commands`, which has the modules by the same names.
SERVER_COMMANDS = {
    "collect": "search Openverse or Unsplash for photos to train on",
    "download": "download the pictures of a table of URLs",
    "label": "label the pictures of a folder in the browser",
    "labels": "convert labelme's files to a table and back; split a table",
    "review": "label the pictures of a job with the least certain predictions",
    "train": "train a model on labelled pictures",
    "teach": "teach a model new labels from pictures of a job, in seconds",
    "evaluate": "measure a model on labelled pictures",
    "compare": "show where two models differ on the same pictures",
    "models": "list, add, promote and roll back models",
    "serve": "run a complete Piqueue on this machine",
    "keys": "create, list and remove API keys",
    "doctor": "check an installation and print what to change",
}
# The titles of the help, each with the first command below it.
_TITLES = {
    "submit": "score pictures",
    "collect": "label pictures",
    "train": "make models",
    "serve": "run the service",
    "completion": "use the shell",
}
_EXAMPLES = """\
examples:
  piqueue serve                                  in one terminal, and in another:
  piqueue submit photos.csv -o results.xlsx
  piqueue submit holiday/ --thumbnails
  piqueue jobs --status running

Help for a command: piqueue COMMAND --help"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    if "_ARGCOMPLETE" in os.environ:
        from argcomplete import autocomplete

        autocomplete(_parser())  # which exits
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in SERVER_COMMANDS:
        return run(f"piqueue {given[0]}", lambda: _run_on_server(given))
    options = _parser().parse_args(given)
    return run(options.program, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    for name, value in vars(options).items():
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                option = f"--{name.replace('_', '-')}"
                raise CommandFailed(f"{option}: {value!a} is not UTF-8: give it as UTF-8") from None
    return int(options.command(options))


def _run_on_server(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the server's command.

    PYTHONPATH and PYTHONSAFEPATH keep packages of the current folder that are named as ours, such
    as `api`, from being imported instead, in this process and in those that it starts.
    """
    root = _server_root()
    if root is None:
        raise CommandFailed("it needs the server: pip install 'piqueue-server[local]'")
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    os.execve(sys.executable, [sys.executable, "-m", "scripts.commands", *arguments], env)  # noqa: S606


def _server_root() -> Path | None:
    """The folder of the server's packages: this clone, or what piqueue-server installed."""
    clone = Path(__file__).resolve().parents[1]
    if (clone / "scripts" / "commands").is_dir():
        return clone
    installed = find_spec("piqueue_server")
    folders = installed.submodule_search_locations if installed else None
    return Path(next(iter(folders))) if folders else None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="piqueue",
        usage="piqueue [-h] [--version] COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"piqueue {version('piqueue')}")
    # The description lists them, by subject.
    commands = parser.add_subparsers(
        prog="piqueue", metavar="COMMAND", required=True, help=argparse.SUPPRESS
    )

    abouts: dict[str, str] = {}

    def add_command(name: str, about: str, **given: Any) -> argparse.ArgumentParser:
        abouts[name] = about
        made: argparse.ArgumentParser = commands.add_parser(name, help=about, **given)
        return made

    def add(name: str, about: str, command: Any, epilog: str = "") -> argparse.ArgumentParser:
        made = add_command(
            name,
            about,
            description=about,
            epilog=epilog,
            parents=[connection_options()],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(command=command, program=made.prog)
        return made

    about = "submit a table, a list of URLs, files or a folder, and write the results"
    submit.add_arguments(add("submit", about, submit.submit, submit.EXAMPLES))

    def add_json(command: argparse.ArgumentParser) -> None:
        about = "print JSON, with the fields that the API gives"
        command.add_argument("--json", action="store_true", help=about)

    one = add("status", "show the state of a job", _status)
    one.add_argument("job")
    add_json(one)

    one = add("open", "show a job and its results in the browser", _open)
    one.add_argument("job")

    about = "write the results of a job"
    results.add_arguments(add("results", about, results.results, results.EXAMPLES))

    about = "write a report of a job as one HTML file"
    one = add("report", about, _report, _REPORT_EXAMPLES)
    one.add_argument("job")
    file = "default: JOB.html in the current folder"
    one.add_argument("-o", "--output", type=Path, metavar="FILE", help=file)
    one.add_argument("--merge", action="store_const", const="parents", help=results.MERGE)

    one = add("cancel", "stop a job and keep its results", _cancel)
    one.add_argument("job")
    add_json(one)

    one = add("retry", "submit the failed pictures of a job again", _retry)
    one.add_argument("job")
    only = "retryable: leave out failures that a retry cannot fix, such as not_an_image"
    one.add_argument("--only", choices=["failed", "retryable"], default="failed", help=only)
    add_json(one)

    one = add("rescore", "score the kept features of a job with other models", _rescore)
    one.add_argument("job")
    models = "repeat it to score with several models at once"
    given = one.add_argument("--model", action="append", dest="models", required=True, help=models)
    given.metavar = "NAME[@VERSION]"
    one.add_argument("--name", help="name of the new job (default: that of JOB)")
    one.add_argument("--no-wait", action="store_true", help="print only the id of the new job")
    add_json(one)

    about = "list the pictures of a job that are most like one of them"
    one = add("similar", about, similar.similar, similar.EXAMPLES)
    similar.add_arguments(one)
    add_json(one)

    about = "list the groups of pictures of a job that are nearly the same"
    one = add("duplicates", about, similar.duplicates, similar.DUPLICATES_EXAMPLES)
    one.add_argument("job")
    add_json(one)

    one = add("jobs", "list your jobs, newest first", _jobs)
    one.add_argument("--status", choices=get_args(JobStatus))
    one.add_argument("--limit", type=int, default=20, metavar="COUNT", help="default: %(default)s")
    add_json(one)

    one = add("delete", "stop a job and delete its pictures and results", _delete)
    one.add_argument("job")

    for name, about in SERVER_COMMANDS.items():
        add_command(name, about, add_help=False)

    about = "print the completion script for a shell"
    one = add_command("completion", about, description=about)
    one.add_argument("shell", choices=["bash", "zsh", "fish"])
    one.set_defaults(command=_completion, program=one.prog)
    parser.description = f"{__doc__}\n{_listed(abouts)}"
    parser.epilog = _EXAMPLES
    return parser


def _listed(abouts: Mapping[str, str]) -> str:
    """The commands by subject, each with what it does."""
    lines = []
    width = shutil.get_terminal_size().columns - 2
    for name, about in abouts.items():
        if name in _TITLES:
            lines += ["", f"{_TITLES[name]}:"]
        lines += wrap(about, width, initial_indent=f"  {name:12}", subsequent_indent=" " * 14)
    return "\n".join(lines)


def _status(options: argparse.Namespace) -> int:
    with connect(options) as client:
        job = client.job(options.job)
    _show(options, job, "\n".join([summary(job), *hosts(job)]), brief=job.status)
    return 0


def _show(
    options: argparse.Namespace, job: Job | list[Job], text: str, brief: str | None = None
) -> None:
    """Print what a command found: as JSON, or only `brief`, or the ids, if that is wanted."""
    if options.json:
        text = msgspec.json.encode(job).decode()
    elif options.quiet:
        text = brief or "\n".join(one.id for one in (job if isinstance(job, list) else [job]))
    if text:
        print(text)


def _open(options: argparse.Namespace) -> int:
    with connect(options) as client:
        address = f"{client.url}/#{client.job(options.job).id}"
    print(address)
    webbrowser.open(address)
    return 0


def _report(options: argparse.Namespace) -> int:
    if options.output:
        check_folder(options.output)
    with connect(options) as client:
        output = options.output or Path(f"{client.job(options.job).id}.html")
        with written_whole(output) as file:
            client.report(options.job, file, merge=options.merge)
    print(output)
    return 0


def _cancel(options: argparse.Namespace) -> int:
    with connect(options) as client:
        job = client.cancel(options.job)
    _show(options, job, summary(job))
    return 0


def _retry(options: argparse.Namespace) -> int:
    with connect(options) as client:
        job = client.retry(options.job, options.only)
    _show(options, job, f"{summary(job)}\nto follow it: piqueue submit --resume {job.id}")
    return 0


def _rescore(options: argparse.Namespace) -> int:
    with connect(options) as client:
        job = client.rescore(options.job, *options.models, name=options.name)
    followed = f"{summary(job)}\nto follow it: piqueue submit --resume {job.id}"
    _show(options, job, job.id if options.no_wait else followed)
    return 0


def _jobs(options: argparse.Namespace) -> int:
    with connect(options) as client:
        jobs = list(islice(client.jobs(options.status), options.limit))
    lines = [
        f"{job.created_at:%Y-%m-%d %H:%M:%S}Z  {summary(job)}  {job.name or ''}".rstrip()
        for job in jobs
    ]
    _show(options, jobs, "\n".join(lines))
    return 0


def _delete(options: argparse.Namespace) -> int:
    with connect(options) as client:
        job = client.job(options.job)
        client.delete(job.id)
    counts = job.counts
    kept = f"{counts.succeeded + counts.failed:,} of {counts.total:,} pictures had a result"
    note(f"deleted {job.id} ({job.status}): {kept}")
    return 0


# zsh completes nothing before this is done, which its own start file may leave out.
_ZSH_COMPLETION = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }"


def _completion(options: argparse.Namespace) -> int:
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise CommandFailed("it needs argcomplete: pip install 'piqueue[completion]'") from None
    if options.shell == "zsh":
        print(_ZSH_COMPLETION)
    print(shellcode(["piqueue"], shell=options.shell))
    return 0
