"""Creates, lists, rotates and removes API keys."""

import argparse
import json
import re
import sys
from collections.abc import Sequence

from piqueue.commands.durations import duration_s
from piqueue.commands.terminal import CommandFailed, run, table
from scripts.commands.parser import command_parser
from worker.jobs.errors import LedgerUnavailable
from worker.jobs.ledger.api_keys import KeyStore, Scope
from worker.jobs.ledger.connection import connect
from worker.jobs.record import utc
from worker.jobs.redis_url import RedisAddress
from worker.jobs.settings import load_settings

MOST_WEIGHT = 100
_EXAMPLES = """\
Keys are stored in Redis, at $PIQUEUE_REDIS_URL. The scope `submit`, the default, allows submitting
jobs, and reading and changing one's own; `read` only reading them; `metrics` reading /metrics;
`operate` all of this, and reading and changing the jobs of every key by their ids. NAME can also be
the owner that `piqueue keys list` shows.

examples:
  piqueue keys add alice
  piqueue keys add prometheus --scope metrics
  piqueue keys add night-import --weight 2 --expires-in 90d
  piqueue keys rotate alice --overlap 24h
  piqueue keys remove alice"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue keys`; gives the exit code."""
    parser = command_parser("keys", __doc__, _EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    lifetime = argparse.ArgumentParser(add_help=False)
    about = "lifetime, such as 12h or 90d (default: unlimited, or that of the earlier key)"
    lifetime.add_argument("--expires-in", type=_lifetime, metavar="TIME", help=about)
    weight = f"1 to {MOST_WEIGHT}: share of the workers, compared with other keys"

    action = actions.add_parser(
        "add", parents=[lifetime], help="create a key, which is shown only once"
    )
    action.add_argument("name", type=_name, help="name of the owner, shown in lists and logs")
    scope = "what the key allows; can be given several times (default: submit)"
    action.add_argument("--scope", action="append", choices=[*Scope], help=scope)
    action.add_argument("--weight", type=_weight, default=1, help=f"{weight} (default: 1)")

    action = actions.add_parser("list", help="list the keys and their last use")
    action.add_argument("--json", action="store_true", help="print JSON")

    action = actions.add_parser(
        "rotate", parents=[lifetime], help="create a new key for an owner, whose jobs it keeps"
    )
    action.add_argument("name")
    overlap = "how long the earlier key stays valid (default: 24h)"
    action.add_argument("--overlap", type=duration_s, default="24h", metavar="TIME", help=overlap)

    action = actions.add_parser("weigh", help="change the weight of an owner")
    action.add_argument("name")
    action.add_argument("weight", type=_weight, help=weight)

    action = actions.add_parser("remove", help="revoke the keys of an owner")
    action.add_argument("name")
    options = parser.parse_args(arguments)
    return run(f"{parser.prog} {options.action}", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    url = load_settings().redis_url
    try:
        return _act(options, KeyStore(connect(url, retries=1)))
    except LedgerUnavailable as error:
        raise CommandFailed(
            f"{error} at {RedisAddress.parse(url)}: start it, or set PIQUEUE_REDIS_URL to the "
            "address of the service's Redis, which piqueue serve prints"
        ) from error


def _act(options: argparse.Namespace, keys: KeyStore) -> int:
    match options.action:
        case "add":
            earlier = keys.all()
            if any(key.name == options.name for key in earlier):
                raise CommandFailed(
                    f"there is a key named {options.name} already: choose another name, or use "
                    f"`piqueue keys rotate {options.name}`"
                )
            scopes = options.scope or [Scope.SUBMIT]
            print(
                keys.add(
                    options.name,
                    scopes=[Scope(scope) for scope in dict.fromkeys(scopes)],
                    lifetime_s=options.expires_in,
                    weight=options.weight,
                )
            )
            print("This key is shown only once: only its hash is stored.", file=sys.stderr)
            if not earlier:
                print(
                    "It is the first key: from now on, every request needs one. Jobs that were "
                    "submitted without a key are left to keys with the scope operate.",
                    file=sys.stderr,
                )
        case "list":
            print(_json(keys) if options.json else "\n".join(_table(keys)))
        case "rotate":
            owner = _owner(keys, options.name)
            print(keys.rotate(owner, options.overlap, options.expires_in))
            print(
                "This key is shown only once. `piqueue keys list` shows when the earlier one "
                "expires, and when each was last used.",
                file=sys.stderr,
            )
        case "weigh":
            keys.weigh(_owner(keys, options.name), options.weight)
        case "remove":
            keys.remove(_owner(keys, options.name))
            if not keys.all():
                print(
                    "It was the last key: an API on a loopback address, or with "
                    "PIQUEUE_ALLOW_NO_KEYS, now answers requests without one, and any other "
                    "refuses all requests.",
                    file=sys.stderr,
                )
    return 0


def _owner(keys: KeyStore, name: str) -> str:
    owners = {key.owner for key in keys.all() if name in (key.name, key.owner)}
    if not owners:
        raise CommandFailed(f"there is no key named {name}: see piqueue keys list")
    if len(owners) > 1:
        raise CommandFailed(
            f"several owners are named {name}: give one of {', '.join(sorted(owners))}, as in "
            "piqueue keys list"
        )
    return owners.pop()


def _table(keys: KeyStore) -> list[str]:
    rows: list[tuple[str, ...]] = [("owner", "name", "scopes", "weight", "last used", "expires")]
    for key in keys.all():
        expires = f"{_time(key.expires_ms)}{' (expired)' if key.expired else ''}"
        used = _time(key.used_ms)
        rows.append((key.owner, key.name, ",".join(key.scopes), str(key.weight), used, expires))
    return table(rows)


def _json(keys: KeyStore) -> str:
    def stamp(stamp_ms: int | None) -> str | None:
        return utc(stamp_ms).isoformat() if stamp_ms else None

    listed = [
        {
            "owner": key.owner,
            "name": key.name,
            "scopes": key.scopes,
            "weight": key.weight,
            "last_used_at": stamp(key.used_ms),
            "expires_at": stamp(key.expires_ms),
            "expired": key.expired,
        }
        for key in keys.all()
    ]
    return json.dumps(listed)


def _time(stamp_ms: int | None) -> str:
    return f"{utc(stamp_ms):%Y-%m-%d %H:%M}Z" if stamp_ms else "never"


def _name(text: str) -> str:
    if not re.fullmatch(r"\S(.{0,62}\S)?", text) or not text.isprintable():
        raise argparse.ArgumentTypeError("must have 1 to 64 printable characters")
    return text


def _weight(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WEIGHT:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST_WEIGHT}")
    return int(text)


def _lifetime(text: str) -> int:
    if not (lifetime_s := duration_s(text)):
        raise argparse.ArgumentTypeError("must be longer than 0, such as 12h or 90d")
    return lifetime_s
