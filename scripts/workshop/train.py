"""Trains a classifier on labelled pictures and writes it as a model folder."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from model.engines.cuda import prepare_tensorflow
from piqueue.commands.progress import tell
from scripts.commands.parser import command_parser
from worker.jobs.settings import load_settings

if TYPE_CHECKING:
    from model.training.config import TrainingConfig

_DATA_OVERRIDES = ("images_base_path", "use_guessed")
_TRAINING_OVERRIDES = ("backbone", "base_weights", "model_path", "runs_path", "seed")
EXAMPLES = """\
A table has a column `name`, and either a column `label` with the one label of each picture or a
column of 0 and 1 for each label. In a folder, the pictures of each label are in a subfolder.

examples:
  piqueue train photos --model models/kinds/1         with photos/beach/*.jpg, photos/city/*.jpg, …
  piqueue train labels.csv --images photos --model models/views/1 --preset laptop
  piqueue train labels.csv --data_config_path data.yaml --training_config_path training.yaml"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue train` and return its exit code, 2 if the data or a setting is invalid."""
    options = _parse(arguments)
    # TensorFlow reads this on import. oneDNN halves the time on CPUs; set here, every run is alike.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    prepare_tensorflow()

    from model.training.config import TrainingError

    before = signal.signal(signal.SIGINT, _stop)
    try:
        return _train(options)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGINT, before)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser("train", __doc__, EXAMPLES)
    given = list(sys.argv[1:] if arguments is None else arguments)
    about = "table of labels, or folder with a subfolder of pictures for each label"
    if any(word.partition("=")[0] == "--csv_path" for word in given):
        parser.add_argument("--csv_path", dest="pictures", type=Path, help=about)
    else:
        parser.add_argument(
            "pictures", type=Path, metavar="PICTURES", help=f"{about} (or --csv_path)"
        )
    about = "smoke: tests every step in a minute; laptop: a good model in minutes; full: the best"
    parser.add_argument("--preset", choices=["smoke", "laptop", "full"], help=about)
    parser.add_argument("--check_only", action="store_true", help="check the data and stop")
    for name in ("data", "training"):
        about = f"YAML file of the {name} configuration"
        parser.add_argument(f"--{name}_config_path", type=Path, help=about)
    group = parser.add_argument_group("override values of the files")
    about = "artifact folder to write, <name>/<version>"
    group.add_argument("--model", "--model_path", dest="model_path", type=Path, help=about)
    about = "folder of the pictures (default: beside the table, or images/ there)"
    group.add_argument(
        "--images", "--images_base_path", dest="images_base_path", type=Path, help=about
    )
    about = "also use labels that nobody has confirmed"
    group.add_argument("--use_guessed", action="store_true", default=None, help=about)
    about = "MobileNetV2 (default), MobileNetV3Small, MobileNetV3Large or EfficientNetV2B0"
    group.add_argument("--backbone", help=about)
    group.add_argument("--base_weights", help="imagenet, none or a .weights.h5 file")
    group.add_argument("--runs_path", type=Path, help="folder of the training logs (runs)")
    group.add_argument("--seed", type=int, help="seed of all random choices")
    return parser.parse_args(given)


def _train(options: argparse.Namespace) -> int:
    from model.training import config
    from model.training.checkpoints import reserved

    overrides = {name: getattr(options, name) for name in _TRAINING_OVERRIDES}
    overrides = config.PRESETS.get(options.preset, {}) | overrides
    training = config.read_config(config.TrainingConfig, options.training_config_path, **overrides)
    _refuse_registry(training.model_path)
    with reserved(training.run_path):
        return _train_in(training, options)


def _train_in(training: "TrainingConfig", options: argparse.Namespace) -> int:
    """Train in the folder of the run, which nothing else writes to."""
    from model.training import config
    from model.training.data.table import read_table
    from scripts.workshop.training_table import describe, find_table
    from scripts.workshop.training_view import LOG_NAME, in_words, shown

    data_path = options.data_config_path
    given: dict[str, Any] = config.read_yaml(data_path) if data_path else {}
    csv_path, folder = find_table(options.pictures, training.run_path / "labels.csv")
    options.images_base_path = options.images_base_path or folder
    overrides = {name: getattr(options, name) for name in _DATA_OVERRIDES}
    given |= {name: value for name, value in overrides.items() if value is not None}
    overrides |= describe(csv_path, given)
    data = config.read_config(config.DataConfig, data_path, **overrides)
    if options.check_only:
        from model.training.data.dataset import read_data

        with shown(training):
            annotations, _, warnings = read_data(csv_path, data, training.folds, training.run_path)
        count = len(annotations.names)
        print("\n".join([*warnings, f"{count} pictures can be used for training"]))
        return 0
    tell(f"the log of this run is {training.run_path / LOG_NAME}")
    with shown(training):
        try:
            from model.training.run import SPLIT_NAME, train
        except ModuleNotFoundError:
            raise
        except ImportError as error:  # the libGL of OpenCV's cv2
            raise config.TrainingError(
                f"{error.name} cannot be loaded ({error}): run pip install --force-reinstall "
                "--no-deps opencv-contrib-python-headless"
            ) from error
        card = train(csv_path, data, training)
    artifact = shlex.quote(str(training.model_path))
    has_split = data.split_col in read_table(csv_path)[0]
    measured = csv_path if has_split else training.run_path / SPLIT_NAME
    table, images = shlex.quote(str(measured)), shlex.quote(str(data.images_base_path))
    print(f"{artifact} is written; its card.json has all figures")
    print(*in_words(card), "next:", sep="\n")
    print(f"  piqueue evaluate {artifact} {table} --images {images} --split val")
    print(f"  piqueue models add {artifact}")
    return 0


def _refuse_registry(model_path: Path) -> None:
    """Raise TrainingError if jobs would use the model as soon as it is written."""
    from model.training.config import TrainingError

    settings = load_settings()
    for folder in (str(settings.artifacts_path), settings.registry_url):
        if not folder or "://" in folder:
            continue
        if model_path.resolve().is_relative_to(Path(folder).resolve()):
            raise TrainingError(
                f"model_path: {model_path} is in the registry {folder}, whose newest version new "
                f"jobs use: write models/{model_path.parent.name}/{model_path.name}, and add it "
                "with piqueue models add"
            )


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """Exit at once: TensorFlow may swallow an exception, and a run may be interrupted anywhere."""
    stopped = "stopped: run the same command to continue after the last complete epoch"
    print(f"\n{stopped}", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
