"""Creates, lists and removes API keys."""

import argparse
import sys
from collections.abc import Sequence

from piqueue.commands.terminal import CommandFailed, run
from scripts.commands.parser import command_parser
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
    parser = command_parser("keys", __doc__, _EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    action = actions.add_parser("add", help="create a key, which is shown only once")
    action.add_argument("name", help="name of the owner, for people")
    actions.add_parser("list", help="list the owners of keys")
    action = actions.add_parser("remove", help="revoke the key of an owner")
    action.add_argument("owner", help="as `piqueue keys list` shows it")
    options = parser.parse_args(arguments)
    return run(f"{parser.prog} {options.action}", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    keys = KeyStore(connect(load_settings().redis_url, retries=1))
    match options.action:
        case "add":
            print(keys.add(options.name))
            print("This key is shown only once: only its hash is stored.", file=sys.stderr)
        case "list":
            for key in keys.all():
                print(f"{key.owner}  {key.name}")
        case "remove":
            if not keys.remove(options.owner):
                raise CommandFailed(f"there is no owner {options.owner}: see piqueue keys list")
    return 0
