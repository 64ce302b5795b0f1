"""The argument parser of a subcommand of `piqueue` that needs the server."""

import argparse

from piqueue.commands.terminal import Parser


def command_parser(
    name: str, description: str | None, examples: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """A parser of `piqueue NAME` with the options of `parents`; its help ends with `examples`."""
    return Parser(
        prog=f"piqueue {name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=parents,
    )
