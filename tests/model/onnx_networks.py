"""Small ONNX networks whose scores can be calculated by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.artifact.card import Card, describe_file, write_card
from model.artifact.head import HEAD_NAME
from model.training.adopt_onnx import OnnxAdoption, adopt_onnx
from tests.golden import SAMPLES
from tests.model.colours import HEIGHT, LABELS, WIDTH, colours_head

OPSET, IR_VERSION = 18, 9
PICTURES = tuple(sorted(SAMPLES.glob("*.jpg"))[:3])
# The logits of the colours, of means from 0 to 1.
KERNEL, BIAS = 8 * np.eye(3, dtype=np.float32), np.full(3, -4, np.float32)

Node = tuple[Any, ...]


def network(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[int, Sequence[int | str | None]]],
    outputs: Mapping[str, tuple[int, Sequence[int | str | None]]],
    weights: dict[str, NDArray[Any]] | None = None,
    opset: int = OPSET,
) -> Any:
    """A network of nodes, of inputs and outputs by their types and shapes, and of weights."""
    takes, gives = (
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in some.items()]
        for some in (inputs, outputs)
    )
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "test", takes, gives, tensors)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def colours(
    last: str | None = None,
    kind: int = TensorProto.FLOAT,
    batch: int | str | None = "N",
    size: Sequence[int | str | None] = (HEIGHT, WIDTH),
    nhwc: bool = False,
    kernel: NDArray[np.float32] = KERNEL,
    bias: NDArray[np.float32] = BIAS,
    opset: int = OPSET,
) -> Any:
    """Gives logits of the mean colours; `last` is the activation at its end, such as Sigmoid."""
    shape = (batch, *size, 3) if nhwc else (batch, 3, *size)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes = [helper.make_node("Transpose", ["pixels"], ["turned"], perm=[0, 3, 1, 2])] * nhwc
    nodes += [
        helper.make_node("GlobalAveragePool", ["turned" if nhwc else "pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("Gemm", ["means", "kernel", "bias"], ["logits"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["logits"], ["scores"]))
    outputs = {"scores" if last else "logits": (kind, (batch, len(bias)))}
    weights = {"kernel": kernel.astype(dtype), "bias": bias.astype(dtype)}
    return network(nodes, {"pixels": (kind, shape)}, outputs, weights, opset)


def adoption(path: Path, folder: Path, **changes: Any) -> OnnxAdoption:
    """The description of a network of `colours` that gives scores, in the file `path`."""
    fields = {
        "onnx_path": path,
        "folder": folder,
        "labels": LABELS,
        "thresholds": (0.5,) * 3,
        "scaling": "unit",
        "pictures": PICTURES,
    }
    return OnnxAdoption(**fields | changes)


def adopted(folder: Path, made: Any, **changes: Any) -> Card:
    """Save the network beside the artifacts, and adopt it."""
    path = folder.parent.parent / "network.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path)
    return adopt_onnx(adoption(path, folder, **changes))


def write_colours_onnx(folder: Path) -> Card:
    """Write the artifact of `tests.model.colours.colours_network` as an ONNX file."""
    return adopted(folder, colours(), activation="sigmoid")


def write_colours_onnx_apart(folder: Path) -> Card:
    """Write an artifact whose ONNX file gives the mean colours, and its head the scores."""
    made = colours(kernel=np.eye(3, dtype=np.float32), bias=np.zeros(3, np.float32))
    card = adopted(folder, made, activation="none")
    colours_head(1.0, 3).save(folder / HEAD_NAME)
    files = card.files | {"head": describe_file(folder / HEAD_NAME)}
    card = card.model_copy(update={"files": files, "activation": "sigmoid"})
    write_card(card, folder)
    return card
