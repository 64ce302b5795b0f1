"""MobileNetV2 as Keras publishes it: downloaded into Keras's cache, where only what loads stays."""

import json
import socket
from pathlib import Path
from typing import Any

import keras

WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
# Weights were trained for squares of these sides; other sizes take those of the last.
SIDES = (96, 128, 160, 192, 224)
CLASSES_URL = (
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
)
CLASSES_MD5 = "c2c37ea517e94d9795004a39431a14cb"
SILENCE_S = 30


class DownloadFailed(OSError):
    """What Keras publishes cannot be had; the text says from where and why."""


def load_published(input_shape: tuple[int, int, int] | None = None) -> Any:
    """MobileNetV2 with weights of ImageNet: whole, or its trunk for pictures of `input_shape`.

    Raises DownloadFailed; a file that is not these weights is removed, so that the next run
    downloads it again.
    """
    height, width, _ = input_shape or (224, 224, 3)
    side = height if height == width and height in SIDES else SIDES[-1]
    top = "" if input_shape is None else "_no_top"
    url = f"{WEIGHTS_URL}mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{side}{top}.h5"
    network = keras.applications.MobileNetV2(
        include_top=input_shape is None, weights=None, input_shape=input_shape
    )
    path = _download(url)
    try:
        network.load_weights(path)
    except (ValueError, OSError) as error:
        path.unlink()
        raise DownloadFailed(
            f"what {url} gave is not these weights, and is removed: run again ({error})"
        ) from error
    return network


def class_lines() -> list[str]:
    """The names of the 1,000 classes, in the order of the scores; raises DownloadFailed."""
    index: dict[str, list[str]] = json.loads(_download(CLASSES_URL, CLASSES_MD5).read_text())
    return [index[str(place)][1].replace("_", " ") for place in range(len(index))]


def _download(url: str, md5: str | None = None) -> Path:
    """Give the place of a file in Keras's cache, where it may be already."""
    before_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)  # Keras itself would wait for ever
    try:
        return Path(keras.utils.get_file(origin=url, cache_subdir="models", file_hash=md5))
    except Exception as error:  # Keras raises no narrower one
        raise DownloadFailed(f"{url} cannot be downloaded: {error}") from error
    finally:
        socket.setdefaulttimeout(before_s)
