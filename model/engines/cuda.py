"""Prepares the process for TensorFlow on a GPU, before anything imports TensorFlow or Keras."""

import os
from collections.abc import Iterator
from ctypes import CDLL
from importlib.util import find_spec
from pathlib import Path


def prepare_tensorflow() -> None:
    """Let TensorFlow allocate GPU memory as needed, and load the library that it does not find.

    By default, a process takes all memory of the GPU, which the workers share. TensorFlow 2.21
    does not search for cuSOLVER where its wheel installs it, and uses no GPU without it; but it
    finds a library that is already loaded.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    for library in _libraries("cusolver/lib/libcusolver.so.*"):
        CDLL(str(library))


def cuda_installed() -> bool:
    """Whether the CUDA libraries of `tensorflow[and-cuda]` are installed, as in the GPU image."""
    return any(_libraries("cuda_runtime/lib/libcudart.so.*"))


def _libraries(pattern: str) -> Iterator[Path]:
    nvidia = find_spec("nvidia")
    for folder in (nvidia and nvidia.submodule_search_locations) or ():
        yield from Path(folder).glob(pattern)
