"""Builds the bundled model `imagenet`: `python -m scripts.workshop.make_imagenet --help`."""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from model.artifact.card import Source
from model.engines.cuda import prepare_tensorflow
from piqueue.commands.pictures import find_pictures

ROOT = Path(__file__).resolve().parents[2]
# The origins of the model: the downloads of Keras, and the files of --backbone, --top, --labels.
KERAS = "MobileNetV2 of Keras Applications, trained on ImageNet"
CORAL = "MobileNetV2 of the Coral project, trained on ImageNet (de-quantized), and its labels"


def main(arguments: list[str] | None = None) -> int:
    """Write the artifact and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.workshop.make_imagenet", description=__doc__
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "model" / "bundled" / "imagenet" / "2"
    )
    about = "100 or more pictures of what the model will see: adds an int8 variant if it is as good"
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help=about)
    files = parser.add_argument_group("files to use instead of downloads by Keras")
    files.add_argument(
        "--backbone", type=Path, help=".weights.h5 of MobileNetV2, alpha 1.0, no top"
    )
    files.add_argument("--top", type=Path, help=".npz of the kernel and bias of its top")
    files.add_argument(
        "--labels", type=Path, help="text file, one class per line: its names, comma separated"
    )
    options = parser.parse_args(arguments)
    given = (options.backbone, options.top, options.labels)
    if any(given) and not all(given):
        print("give --backbone, --top and --labels, or none of them", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    prepare_tensorflow()

    from model.training import imagenet
    from model.training.adoption import AdoptionError, decoded

    pictures = None
    try:
        if options.pictures:
            paths = find_pictures(options.pictures)
            pictures = np.stack([decoded(path, imagenet.SIZE) for path in paths])
        if options.labels:
            lines = options.labels.read_text(encoding="utf-8-sig").splitlines()
        else:
            lines = imagenet.class_lines()
        network = imagenet.load_network(options.backbone, options.top)
    except imagenet.DownloadFailed as error:
        print(f"{error}\nWithout internet, give --backbone, --top and --labels", file=sys.stderr)
        return 2
    except (AdoptionError, ValueError) as error:
        print(f"--pictures {options.pictures}: {error}", file=sys.stderr)
        return 2
    sources = (Source(name=CORAL if options.labels else KERAS, terms="Apache-2.0"),)
    card = imagenet.make_artifact(
        network, imagenet.class_names(lines), options.folder, sources, pictures
    )
    print(f"{options.folder}: {len(card.labels)} labels, sha256 {card.sha256}")
    for name, variant in card.variants.items():
        print(f"{name}: {variant.metrics['validation_against_float']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
