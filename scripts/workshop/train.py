"""Trains the classifier: `python -m scripts.workshop.train --help`."""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

_DATA_OVERRIDES = ("images_base_path", "use_guessed")
_TRAINING_OVERRIDES = ("base_weights", "model_path", "runs_path", "seed")


def main(arguments: list[str] | None = None) -> int:
    """Run a training and return its exit code, 2 if the data or a configuration is invalid."""
    parser = argparse.ArgumentParser(prog="python -m scripts.workshop.train", description=__doc__)
    parser.add_argument("--csv_path", type=Path, required=True, help="table of labels")
    for name in ("data", "training"):
        about = f"YAML file of the {name} configuration"
        parser.add_argument(f"--{name}_config_path", type=Path, required=True, help=about)
    parser.add_argument(
        "--preset",
        choices=["smoke", "laptop", "full"],
        help="smoke: tests every step in a minute; laptop: a good model in minutes; full: the best",
    )
    parser.add_argument("--check_only", action="store_true", help="check the data and stop")
    group = parser.add_argument_group("override values of the files")
    group.add_argument("--images_base_path", type=Path, help="folder of the pictures")
    about = "also use labels that nobody has confirmed"
    group.add_argument("--use_guessed", action="store_true", default=None, help=about)
    group.add_argument("--base_weights", help="imagenet, none or a .weights.h5 file")
    group.add_argument("--model_path", type=Path, help="artifact folder, <name>/<version>")
    group.add_argument("--runs_path", type=Path, help="folder of the training logs (runs)")
    group.add_argument("--seed", type=int, help="seed of all random choices")
    options = parser.parse_args(arguments)
    # TensorFlow reads this on import. oneDNN halves the time on CPUs; set here, every run is alike.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

    from model.training import config

    images = {name: getattr(options, name) for name in _DATA_OVERRIDES}
    overrides = {name: getattr(options, name) for name in _TRAINING_OVERRIDES}
    overrides = config.PRESETS.get(options.preset, {}) | overrides
    try:
        data = config.read_config(config.DataConfig, options.data_config_path, **images)
        path = options.training_config_path
        training = config.read_config(config.TrainingConfig, path, **overrides)
        if options.check_only:
            from model.training.data.dataset import read_data

            annotations, _, warnings = read_data(options.csv_path, data, training.folds)
            count = len(annotations.names)
            print("\n".join([*warnings, f"{count} pictures can be used for training"]))
            return 0
        from model.training.run import train

        card = train(options.csv_path, data, training)
    except config.TrainingError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{training.model_path}: {card.name} {card.version}, sha256 {card.sha256}")
    for split, metrics in card.metrics.items():
        print(split)
        for name, value in metrics.items():
            print(f"  {name:32} {value:.4f}")
    for name, variant in card.variants.items():
        print(f"{name}: {variant.metrics['validation_against_float']}")
    return 0


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """Exit at once: TensorFlow may swallow an exception, and a run may be interrupted anywhere."""
    stopped = "stopped: run the same command to continue after the last complete epoch"
    print(f"\n{stopped}", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _stop)
    sys.exit(main())
