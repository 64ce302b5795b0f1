"""Lists, adds, promotes and rolls back models."""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from model.artifact.card import ArtifactInvalid
from model.artifact.subprocess_module import ROOT, ModuleFailed, run_module
from model.predictor import verify_artifact
from piqueue.commands.sources import find_pictures
from piqueue.commands.terminal import CommandFailed, run
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.configured import open_catalog
from worker.jobs.models.download import download, unpack
from worker.jobs.models.promotion import add, promote, roll_back
from worker.jobs.settings import load_settings

SAMPLES = ROOT / "scripts" / "samples"
ADOPTION_DEADLINE_S = 1800
EXAMPLES = """\
These talk to the registry, PIQUEUE_REGISTRY_URL, and not to the API. Every API and worker with the
same registry sees a change within seconds; jobs that began keep the version they have.

examples:
  piqueue models add models/scenes/3
  piqueue models add cats.keras --name cats --labels cats.txt --scaling tf
  piqueue models add https://example.com/scenes-4.zip --sha256 9f86d081884c7d65…
  piqueue models promote scenes 3
  piqueue models rollback scenes"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue models`; gives the exit code."""
    options = _parser().parse_args(arguments)
    return run(options.program, lambda: int(options.command(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="piqueue models",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    one = actions.add_parser("list", help="list all versions")
    one.set_defaults(command=_list, program=one.prog)

    one = actions.add_parser("add", help="add an artifact, or any Keras classifier")
    one.set_defaults(command=_add, program=one.prog)
    one.add_argument("source", help="artifact folder, .zip of one, .keras file, or URL of these")
    one.add_argument("--sha256", help="of what a URL gives")
    keras = one.add_argument_group("a .keras file")
    keras.add_argument("--name", type=_name, help="lower-case letters, digits, - and _")
    keras.add_argument("--version", metavar="NUMBER", help="else the next")
    keras.add_argument("--labels", type=Path, metavar="FILE", help="a label a line, as scored")
    keras.add_argument(
        "--scaling",
        choices=["tf", "unit", "raw", "torch", "caffe"],
        help="the pixel values it was trained on: tf -1..1, unit 0..1, raw 0..255, torch and caffe "
        "less the mean of ImageNet",
    )
    keras.add_argument("--activation", choices=["sigmoid", "softmax"], help="if it ends in logits")
    keras.add_argument(
        "--input-size", type=_size, metavar="HEIGHTxWIDTH", help="if it takes pictures of any size"
    )
    keras.add_argument(
        "--top-k", type=int, metavar="K", help="answer with the K best scores; else with all"
    )
    keras.add_argument(
        "--threshold", type=float, default=0.5, help="score that makes a label (%(default)s)"
    )
    keras.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="to try it on; else the sample photos"
    )
    keras.add_argument("--source-name", metavar="TEXT", help="what it was made from, for its card")
    keras.add_argument("--source-terms", metavar="TEXT", help="and the terms of that")

    one = actions.add_parser("promote", help="have jobs get this version")
    one.set_defaults(command=_promote, program=one.prog)
    one.add_argument("name")
    one.add_argument("version")

    one = actions.add_parser("rollback", help="go back to the version promoted before")
    one.set_defaults(command=_roll_back, program=one.prog)
    one.add_argument("name")
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]+)x([0-9]+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 224x224")
    return int(match[1]), int(match[2])


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: lower-case letters, digits, - and _, and a letter or digit first"
        )
    return text


def _list(_options: argparse.Namespace) -> int:
    catalog = open_catalog(load_settings())
    default = catalog.resolve(None)
    for card in catalog.all():
        marks = []
        if card == catalog.resolve(card.name):
            marks.append("current")
        if card == default:
            marks.append("default")
        answer = f"top {card.top_k} of " if card.top_k else ""
        print(
            f"{card.name}@{card.version}  {card.created}  {answer}{len(card.labels)} labels  "
            f"{card.memory_bytes / 1e6:.0f} MB a thread  {card.sha256[:12]}  "
            f"{' '.join(marks)}".rstrip()
        )
    return 0


def _add(options: argparse.Namespace) -> int:
    catalog = open_catalog(load_settings())
    with tempfile.TemporaryDirectory(prefix="piqueue-models-") as scratch:
        source = _local(options, Path(scratch))
        try:
            folder = _artifact_folder(source, options, catalog, Path(scratch) / "artifacts")
            verify_artifact(folder)
        except ArtifactInvalid as error:
            raise CommandFailed(str(error)) from error
        added = add(catalog, folder)
    print(f"{added.name}@{added.version} is there, with {len(added.labels)} labels")
    if added != catalog.resolve(added.name):
        print(f"to have jobs get it: piqueue models promote {added.name} {added.version}")
    return 0


def _local(options: argparse.Namespace, scratch: Path) -> Path:
    """Give the source on this machine, downloaded if it is a URL."""
    if not options.source.startswith(("http://", "https://")):
        return Path(options.source)
    if not options.sha256:
        raise CommandFailed("say with --sha256 what the URL must give")
    name = options.source.partition("?")[0].rpartition("/")[2]
    return download(options.source, options.sha256.lower(), scratch / (name or "model.zip"))


def _artifact_folder(
    source: Path, options: argparse.Namespace, catalog: ModelCatalog, scratch: Path
) -> Path:
    if source.is_dir():
        return source
    if not source.is_file():
        raise CommandFailed(f"there is no {source}")
    if source.suffix == ".keras":
        return _adopt(source, options, catalog, scratch)
    if source.suffix == ".zip":
        card = unpack(source, scratch).card
        return scratch / card.name / card.version
    raise CommandFailed(f"{source} is neither an artifact folder, nor a .zip or .keras file")


def _adopt(source: Path, options: argparse.Namespace, catalog: ModelCatalog, scratch: Path) -> Path:
    """Make an artifact of a Keras model, in a process of its own: TensorFlow is large."""
    for option in ("name", "labels", "scaling"):
        if getattr(options, option) is None:
            raise CommandFailed(f"a .keras file does not say it: give --{option}")
    if find_spec("tensorflow") is None:
        raise CommandFailed(
            "converting a .keras file needs TensorFlow, which is not installed: pip install "
            "'piqueue[train]', or add an artifact folder that was made elsewhere"
        )
    if not options.labels.is_file():
        raise CommandFailed(f"--labels {options.labels}: there is no such file")
    labels = [line.strip() for line in options.labels.read_text().splitlines() if line.strip()]
    version = options.version or _next_version(catalog, options.name)
    folder: Path = scratch / options.name / version
    sources = []
    if options.source_name:
        terms = options.source_terms or "not stated"
        sources.append({"name": options.source_name, "terms": terms})
    adoption = {
        "keras_path": str(source.resolve()),
        "folder": str(folder),
        "labels": labels,
        "thresholds": [options.threshold] * len(labels),
        "scaling": options.scaling,
        "activation": options.activation,
        "input_size": options.input_size,
        "top_k": options.top_k,
        "pictures": [str(path.resolve()) for path in _pictures(options.pictures)],
        "sources": sources,
    }
    try:
        run_module(
            "model.training.adopt", text=json.dumps(adoption), deadline_s=ADOPTION_DEADLINE_S
        )
    except ModuleFailed as error:
        raise CommandFailed(f"{source.name}: {error}") from error
    return folder


def _pictures(folder: Path | None) -> list[Path]:
    pictures = find_pictures(folder or SAMPLES) if (folder or SAMPLES).is_dir() else []
    if not pictures:
        raise CommandFailed("say with --pictures where some pictures are to try it on")
    return pictures


def _next_version(catalog: ModelCatalog, name: str) -> str:
    versions = [int(card.version) for card in catalog.all() if card.name == name]
    return str(max(versions, default=0) + 1)


def _promote(options: argparse.Namespace) -> int:
    card = promote(open_catalog(load_settings()), options.name, options.version)
    print(f"jobs that name {card.name} get {card.name}@{card.version} from now on")
    return 0


def _roll_back(options: argparse.Namespace) -> int:
    card = roll_back(open_catalog(load_settings()), options.name)
    print(f"jobs that name {card.name} get {card.name}@{card.version} again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
