"""Creates, lists and removes API keys."""

import argparse
import sys
from collections.abc import Sequence

from piqueue.commands.terminal import CommandFailed, run
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.ledger.connection import connect
from worker.jobs.settings import load_settings

_EXAMPLES = """\
Keys are stored in Redis, at $PIQUEUE_REDIS_URL.

examples:
  piqueue keys add alice
  piqueue keys remove 5f0c1d2e3a4b"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue keys`; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="piqueue keys",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = actions.add_parser("add", help="create a key, which is shown only once")
    action.add_argument("name", help="name of the owner, for people")
    action.set_defaults(command=_add, program=action.prog)
    action = actions.add_parser("list", help="list the owners of keys")
    action.set_defaults(command=_list, program=action.prog)
    action = actions.add_parser("remove", help="revoke the key of an owner")
    action.add_argument("owner", help="as `piqueue keys list` shows it")
    action.set_defaults(command=_remove, program=action.prog)
    options = parser.parse_args(arguments)
    return run(options.program, lambda: int(options.command(_keys(), options)))


def _keys() -> KeyStore:
    return KeyStore(connect(load_settings().redis_url, retries=1))


def _add(keys: KeyStore, options: argparse.Namespace) -> int:
    print(keys.add(options.name))
    print("This key is shown only once: only its hash is stored.", file=sys.stderr)
    return 0


def _list(keys: KeyStore, _options: argparse.Namespace) -> int:
    for key in keys.all():
        print(f"{key.owner}  {key.name}")
    return 0


def _remove(keys: KeyStore, options: argparse.Namespace) -> int:
    if not keys.remove(options.owner):
        raise CommandFailed(f"there is no owner {options.owner}: see piqueue keys list")
    return 0
