"""Downloads MobileNetV2 as published by Keras, and removes files that cannot be loaded."""

import json
import socket
from pathlib import Path
from typing import Any

import keras

WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
# Sides in pixels for which weights are published; other sizes use the weights of the last.
SIDES = (96, 128, 160, 192, 224)
CLASSES_URL = (
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
)
CLASSES_MD5 = "c2c37ea517e94d9795004a39431a14cb"
SOCKET_TIMEOUT_S = 30


class DownloadFailed(OSError):
    """A published file cannot be downloaded; the message gives the address and the reason."""


def load_published(input_shape: tuple[int, int, int] | None = None) -> Any:
    """MobileNetV2 with weights of ImageNet: with its top, or without it for `input_shape`.

    Raises DownloadFailed. A file that does not contain these weights is removed, so that the next
    run downloads it again.
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
            f"{url} gave a file without these weights, which was removed: run again ({error})"
        ) from error
    return network


def class_lines() -> list[str]:
    """The names of the 1,000 classes, in the order of the scores; raises DownloadFailed."""
    index: dict[str, list[str]] = json.loads(_download(CLASSES_URL, CLASSES_MD5).read_text())
    return [index[str(number)][1].replace("_", " ") for number in range(len(index))]


def _download(url: str, md5: str | None = None) -> Path:
    """Return the path of a file in Keras's cache, downloaded if it is not there."""
    previous_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_TIMEOUT_S)  # Keras sets none
    try:
        return Path(keras.utils.get_file(origin=url, cache_subdir="models", file_hash=md5))
    except Exception as error:  # Keras raises no narrower one
        raise DownloadFailed(f"{url} cannot be downloaded: {error}") from error
    finally:
        socket.setdefaulttimeout(previous_s)
