"""Lists, adds, promotes and rolls back models."""

import argparse
import json
import re
import tempfile
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model.artifact.card import ArtifactInvalid
from model.artifact.subprocess_module import ROOT, ModuleFailed, run_module
from model.predictor import verify_artifact
from piqueue.commands.pictures import find_pictures
from piqueue.commands.terminal import CommandFailed, run
from scripts.commands.parser import command_parser
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.configured import open_catalog
from worker.jobs.models.download import download, unpack
from worker.jobs.settings import Settings, load_settings

SAMPLES = ROOT / "scripts" / "samples"
ADOPTION_DEADLINE_S = 1800
# More pictures in --pictures would need too much memory.
MOST_PICTURES = 1000
NEEDED = {"tensorflow": "TensorFlow", "onnxruntime": "ONNX Runtime"}
EXAMPLES = """\
These commands use the registry, PIQUEUE_REGISTRY_URL, and not the API. Every API and worker with
the same registry sees a change within seconds. Existing jobs keep their version.

examples:
  piqueue models add models/scenes/6
  piqueue models add cats.keras --name cats --labels cats.txt --scaling tf
  piqueue models add cats.onnx --name cats --labels cats.txt --scaling torch --activation softmax
  piqueue models add https://example.com/scenes-7.zip --sha256 9f86d081884c7d65…
  piqueue models promote scenes 6
  piqueue models rollback scenes"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue models` and return its exit code."""
    options = _parser().parse_args(arguments)
    return run(f"piqueue models {options.action}", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    settings = load_settings()
    catalog = open_catalog(settings)
    if options.action != "list":
        require_registry(settings)
    read_by = (
        f"PIQUEUE_REGISTRY_URL is {settings.registry_url}"
        if settings.registry_url
        else f"PIQUEUE_ARTIFACTS_PATH is {settings.artifacts_path}"
    )
    match options.action:
        case "list":
            _list(catalog, as_json=options.json)
        case "add":
            _add(options, catalog, settings)
        case "promote":
            with writing(settings):
                card = catalog.promote(options.name, options.version)
            new = f"{card.name}@{card.version}"
            print(f"new jobs with the model {card.name} now use {new}, where {read_by}")
        case "rollback":
            with writing(settings):
                card = catalog.roll_back(options.name)
            new = f"{card.name}@{card.version}"
            print(f"new jobs with the model {card.name} use {new} again, where {read_by}")
    return 0


def require_registry(settings: Settings) -> None:
    """Raise CommandFailed if a model would be written among the bundled ones."""
    if settings.registry_url is None and "artifacts_path" not in settings.model_fields_set:
        raise CommandFailed(
            "set PIQUEUE_REGISTRY_URL to the registry of the API and the workers, a folder or "
            "s3://bucket/prefix; piqueue serve prints that of its own"
        )


@contextmanager
def writing(settings: Settings) -> Iterator[None]:
    """Turn the OSError of a registry that cannot be written into a CommandFailed."""
    try:
        yield
    except OSError as error:
        raise CommandFailed(
            f"the registry {settings.registry_url or settings.artifacts_path} cannot be written "
            f"({error.strerror}): set PIQUEUE_REGISTRY_URL to a folder that you can write to, or "
            "to s3://bucket/prefix"
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("models", __doc__, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)

    def action(name: str, about: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=about, description=about)

    about = "print JSON"
    action("list", "list all versions").add_argument("--json", action="store_true", help=about)
    add = action("add", "add an artifact, or a classifier of Keras, PyTorch or scikit-learn")
    add.add_argument(
        "source", help="artifact folder, .zip of one, .keras or .onnx file, or URL of such a file"
    )
    add.add_argument("--sha256", help="hash of the file at the URL")
    network = add.add_argument_group("options for a .keras or .onnx file")
    network.add_argument("--name", type=model_name, help="lower-case letters, digits, - and _")
    network.add_argument("--version", metavar="NUMBER", help="default: the next number")
    network.add_argument(
        "--labels", type=Path, metavar="FILE", help="one label per line, in the order of the scores"
    )
    network.add_argument(
        "--scaling",
        choices=["tf", "unit", "raw", "torch", "caffe"],
        help="pixel values of its training: tf -1..1, unit 0..1, raw 0..255, torch and caffe with "
        "the mean of ImageNet subtracted",
    )
    about = "instead of --scaling: mean of red, green and blue, of pixel values 0..1"
    network.add_argument("--mean", type=_channels, metavar="R,G,B", help=about)
    about = "with --mean: standard deviation of red, green and blue"
    network.add_argument("--std", type=_channels, metavar="R,G,B", help=about)
    network.add_argument(
        "--activation",
        choices=["sigmoid", "softmax", "none"],
        help="function to apply if the model returns logits; none if a .onnx file returns scores "
        "without a sigmoid or softmax at its end",
    )
    network.add_argument(
        "--input-size",
        type=_size,
        metavar="HEIGHTxWIDTH",
        help="size to use if the model accepts any size",
    )
    network.add_argument("--top-k", type=int, metavar="K", help="return only the K best scores")
    about = "score from which a label is predicted (default: %(default)s)"
    network.add_argument("--threshold", type=float, default=0.5, help=about)
    about = (
        "pictures to test the model with (default: the sample photos); with 100 or more, the model "
        "gets an int8 variant if that is as good"
    )
    network.add_argument("--pictures", type=Path, metavar="FOLDER", help=about)
    onnx = add.add_argument_group("options for a .onnx file")
    onnx.add_argument("--output", metavar="NAME", help="output with the scores, of several")
    onnx.add_argument(
        "--layout",
        choices=["nchw", "nhwc"],
        help="order of the dimensions of its input, if the file does not show it",
    )
    network.add_argument("--source-name", metavar="TEXT", help="origin of the model, for its card")
    network.add_argument("--source-terms", metavar="TEXT", help="license of the origin")
    promote_version = action("promote", "use a version for new jobs")
    promote_version.add_argument("name")
    promote_version.add_argument("version")
    action("rollback", "return to the version promoted before").add_argument("name")
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]+)x([0-9]+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} must have the form 224x224")
    return int(match[1]), int(match[2])


def _channels(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} must have the form 0.485,0.456,0.406")
    return values


def model_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: use lower-case letters, digits, - and _, and begin with a letter or digit"
        )
    return text


def _list(catalog: ModelCatalog, *, as_json: bool) -> None:
    default = catalog.resolve(None)
    listed: list[dict[str, Any]] = [
        {
            "name": card.name,
            "version": card.version,
            "created": f"{card.created}",
            "labels": len(card.labels),
            "top_k": card.top_k,
            "memory_bytes": card.memory_bytes,
            "sha256": card.sha256,
            "current": card == catalog.resolve(card.name),
            "default": card == default,
        }
        for card in catalog.all()
    ]
    if as_json:
        print(json.dumps(listed))
        return
    for one in listed:
        marks = " ".join(mark for mark in ("current", "default") if one[mark])
        answer = f"top {one['top_k']} of " if one["top_k"] else ""
        print(
            f"{one['name']}@{one['version']}  {one['created']}  {answer}{one['labels']} labels  "
            f"{one['memory_bytes'] / 1e6:.0f} MB a thread  {one['sha256'][:12]}  {marks}".rstrip()
        )


def _add(options: argparse.Namespace, catalog: ModelCatalog, settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="piqueue-models-") as scratch:
        source = _local(options, Path(scratch))
        try:
            folder = _artifact_folder(source, options, catalog, Path(scratch) / "artifacts")
            verify_artifact(folder)
        except ArtifactInvalid as error:
            raise CommandFailed(str(error)) from error
        with writing(settings):
            added = catalog.add(folder)
    print(f"added {added.name}@{added.version} with {len(added.labels)} labels")
    if added != catalog.resolve(added.name):
        print(f"to use it for new jobs: piqueue models promote {added.name} {added.version}")


def _local(options: argparse.Namespace, scratch: Path) -> Path:
    """The path of the source, which is downloaded if it is a URL."""
    if not options.source.startswith(("http://", "https://")):
        return Path(options.source)
    if not options.sha256:
        raise CommandFailed("the source is a URL: add --sha256, the hash of its file")
    name = options.source.partition("?")[0].rpartition("/")[2]
    return download(options.source, options.sha256.lower(), scratch / (name or "model.zip"))


def _artifact_folder(
    source: Path, options: argparse.Namespace, catalog: ModelCatalog, scratch: Path
) -> Path:
    if source.is_dir():
        return source
    if not source.is_file():
        raise CommandFailed(f"{source} does not exist: correct the path")
    if source.suffix in (".keras", ".onnx"):
        return _adopt(source, options, catalog, scratch)
    if source.suffix in (".pt", ".pth", ".pkl", ".joblib"):
        raise CommandFailed(
            f"{source} contains code of Python, which Piqueue does not run: export it as .onnx; "
            "docs/models.md shows how"
        )
    if source.suffix == ".zip":
        card = unpack(source, scratch).card
        return scratch / card.name / card.version
    if source.suffix in (".h5", ".hdf5"):
        raise CommandFailed(
            f"{source} has the format of Keras before version 3: convert it in Python with "
            f"keras.models.load_model({source.name!r}, compile=False)"
            f".save({source.with_suffix('.keras').name!r}), then add that file"
        )
    raise CommandFailed(f"{source}: give an artifact folder, or a .zip, .keras or .onnx file")


def _read_labels(path: Path) -> list[str]:
    """Read one label a line, in UTF-8 or, with a byte order mark, UTF-16. Raises CommandFailed."""
    text = path.read_bytes()
    encoding = "utf-16" if text.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        lines = text.decode(encoding).splitlines()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CommandFailed(
            f"--labels {path}, line {line}: the byte 0x{error.object[error.start]:02X} is not "
            "UTF-8: save the file as UTF-8"
        ) from None
    labels: dict[str, int] = {}
    # A byte order mark within a list is that of a file that was appended to another one.
    for number, label in enumerate((line.replace("\ufeff", "").strip() for line in lines), 1):
        if not label.isprintable():
            raise CommandFailed(
                f"--labels {path}, line {number}: {label!r} has control or invisible characters: "
                "remove them, and save the file as UTF-8"
            )
        if label in labels:
            raise CommandFailed(
                f"--labels {path}, line {number}: {label!r} is in line {labels[label]} already: "
                "give each score a label of its own"
            )
        if label:
            labels[label] = number
    return list(labels)


def _adopt(source: Path, options: argparse.Namespace, catalog: ModelCatalog, scratch: Path) -> Path:
    """Make an artifact of a network in a Keras or ONNX file."""
    suffix = source.suffix
    described = ["name", "labels", *([] if options.mean or options.std else ["scaling"])]
    for option in described:
        if getattr(options, option) is None:
            raise CommandFailed(f"{source} is a {suffix} file: add --{option}")
    if bool(options.mean) != bool(options.std) or (options.mean and options.scaling):
        raise CommandFailed("give --mean and --std together, without --scaling, or --scaling alone")
    needed, extra = ("tensorflow", "train") if suffix == ".keras" else ("onnxruntime", "onnx")
    if find_spec(needed) is None:
        raise CommandFailed(
            f"adding a {suffix} file needs {NEEDED[needed]}, which is not installed: pip install "
            f"'piqueue-server[{extra}]', or add an artifact folder from another machine"
        )
    if not options.labels.is_file():
        raise CommandFailed(f"--labels {options.labels} does not exist: correct the path")
    labels = _read_labels(options.labels)
    versions = [int(card.version) for card in catalog.all() if card.name == options.name]
    version = options.version or str(max(versions, default=0) + 1)
    folder: Path = scratch / options.name / version
    pictures = find_pictures(options.pictures or SAMPLES)
    if not pictures:
        raise CommandFailed("give a folder of pictures to test the model with: --pictures FOLDER")
    source_card = {"name": options.source_name, "terms": options.source_terms or "not stated"}
    description = {
        "folder": str(folder),
        "labels": labels,
        "thresholds": [options.threshold] * len(labels),
        "scaling": "mean_std" if options.mean else options.scaling,
        "mean": options.mean,
        "std": options.std,
        "activation": options.activation,
        "input_size": options.input_size,
        "top_k": options.top_k,
        "pictures": [str(path.resolve()) for path in pictures[:MOST_PICTURES]],
        "sources": [source_card] if options.source_name else [],
    }
    if suffix == ".keras":
        _adopt_keras(source, options, description)
    else:
        _adopt_onnx(source, options, description)
    return folder


def _adopt_onnx(source: Path, options: argparse.Namespace, description: dict[str, object]) -> None:
    from model.training.adopt_onnx import OnnxAdoption, adopt_onnx
    from model.training.adoption import AdoptionError

    own = {"onnx_path": source.resolve(), "layout": options.layout, "output": options.output}
    try:
        adopt_onnx(OnnxAdoption.model_validate(description | own))
    except AdoptionError as error:
        raise CommandFailed(f"{source.name}: {error}") from error


def _adopt_keras(source: Path, options: argparse.Namespace, description: dict[str, object]) -> None:
    """Convert a Keras model, in a subprocess as TensorFlow needs much memory."""
    for option in ("layout", "output"):
        if getattr(options, option):
            raise CommandFailed(f"--{option} is for .onnx files: omit it")
    if options.activation == "none":
        raise CommandFailed("--activation none is for .onnx files: omit it")
    own = {"keras_path": str(source.resolve()), "int8": options.pictures is not None}
    try:
        written = run_module(
            "model.training.adopt_process",
            text=json.dumps(description | own),
            deadline_s=ADOPTION_DEADLINE_S,
        )
    except ModuleFailed as error:
        raise CommandFailed(f"{source.name}: {error}") from error
    if reason := written.rstrip("\n").rpartition("\n")[2]:
        print(f"no int8 variant: {reason}")
