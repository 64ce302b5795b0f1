"""Trains the classifier: `python -m scripts.workshop.train --help`."""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType


def main(arguments: list[str] | None = None) -> int:
    """Run one training; exit code 0 if the artifact is written, 2 if a setting or file is wrong."""
    options = _parse(arguments)
    # TensorFlow reads this on import. oneDNN halves the time on CPUs; set here, every run is alike.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

    from model.training.config import (
        PRESETS,
        DataConfig,
        TrainingConfig,
        TrainingError,
        read_config,
    )

    try:
        data = read_config(
            DataConfig, options.data_config_path, images_base_path=options.images_base_path
        )
        training = read_config(
            TrainingConfig,
            options.training_config_path,
            **PRESETS.get(options.preset, {}),
            base_weights=options.base_weights,
            model_path=options.model_path,
            runs_path=options.runs_path,
            seed=options.seed,
        )
        if options.check_only:
            from model.training.data.dataset import read_data

            annotations, _, warnings = read_data(options.csv_path, data)
            print(
                "\n".join(
                    [*warnings, f"{len(annotations.names)} pictures can be used for training"]
                )
            )
            return 0
        from model.training.run import train

        card = train(options.csv_path, data, training)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{training.model_path}: {card.name} {card.version}, sha256 {card.sha256}")
    for split, figures in card.metrics.items():
        print(split)
        for name, value in figures.items():
            print(f"  {name:32} {value:.4f}")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.workshop.train", description=__doc__)
    parser.add_argument("--csv_path", type=Path, required=True, help="name,<label>,… of 0 and 1")
    parser.add_argument("--data_config_path", type=Path, required=True)
    parser.add_argument("--training_config_path", type=Path, required=True)
    parser.add_argument(
        "--preset",
        choices=["smoke", "laptop", "full"],
        help="smoke: a trial in a minute; laptop: a good model in minutes; full: the best model",
    )
    parser.add_argument("--check_only", action="store_true", help="check the data, then stop")
    overrides = parser.add_argument_group("settings that replace those of the files")
    overrides.add_argument("--images_base_path", type=Path)
    overrides.add_argument("--base_weights", help="imagenet, none or a .weights.h5 file")
    overrides.add_argument("--model_path", type=Path, help="artifact folder, <name>/<version>")
    overrides.add_argument("--runs_path", type=Path, help="folder of logs (runs)")
    overrides.add_argument("--seed", type=int)
    return parser.parse_args(arguments)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """Exit at once: TensorFlow may swallow an exception, and a run may be interrupted anywhere."""
    print(
        "\nstopped: run the same command to continue after the last complete epoch", file=sys.stderr
    )
    sys.stderr.flush()
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _stop)
    sys.exit(main())
