"""Runs a subcommand of `piqueue` that needs the server: python -m scripts.commands NAME ..."""

import sys
from collections.abc import Sequence
from importlib import import_module

from worker.jobs.errors import PiqueueError

MODULES = {
    "collect": "scripts.workshop.collecting.collect",
    "compare": "scripts.workshop.compare",
    "doctor": "scripts.commands.doctor",
    "download": "scripts.workshop.collecting.download",
    "evaluate": "scripts.workshop.evaluate",
    "keys": "scripts.commands.keys",
    "label": "scripts.workshop.labelling.label",
    "labels": "scripts.workshop.labelling.tables",
    "models": "scripts.commands.models",
    "review": "scripts.workshop.labelling.review",
    "serve": "scripts.local.serve",
    "teach": "scripts.workshop.teach",
    "train": "scripts.workshop.train",
}


def main(arguments: Sequence[str]) -> int:
    """Run the command `arguments[0]` with the other arguments; gives the exit code."""
    name = arguments[0]
    try:
        return int(import_module(MODULES[name]).main(arguments[1:]))
    except ModuleNotFoundError as error:
        extras = "local,teach" if name == "teach" else "local,train"
        detail = f"needs {error.name}: pip install 'piqueue-server[{extras}]'"
        print(f"piqueue {name} {detail}", file=sys.stderr)
    except PiqueueError as error:
        print(f"piqueue {name}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
