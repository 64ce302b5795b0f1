"""Makes an artifact of any ONNX classifier with one picture as input and one vector of scores."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.artifact.card import Activation, ArtifactInvalid, Card, describe_file, write_card
from model.engines.footprint import measure
from model.engines.onnx import ERRORS, open_session, short
from model.engines.prediction import find_score_fault
from model.images.decode import PREPROCESSING
from model.training.adoption import AdoptionError, Description, decoded

ONNX_NAME = "model.onnx"
Layout = Literal["nchw", "nhwc"]
# ONNX Runtime promises to run models from this opset on, the first with Mul and Add as used here.
OLDEST_OPSET = 7
# Opset of the added nodes, if the network has no node of the standard domain.
OWN_OPSET = 13
# What a file of protocol buffers can hold.
MOST_BYTES = 2_000_000_000
# Scores of a picture may differ by this much between two runs, and alone and in a batch.
TOLERANCE = 0.01
_INPUT_TYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
}
_ACTIVATIONS: dict[str, Activation] = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
# Operations after an activation that change no score.
_PASSED = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze")


class OnnxAdoption(Description):
    """An ONNX network in a file."""

    onnx_path: Path
    activation: Activation | Literal["none"] | None = None
    """Converts logits to scores; `none` if the network gives scores, and its file does not show it.
    """
    layout: Layout | None = None
    """The order of the input's dimensions, if the file does not show it."""
    output: str | None = None
    """The output with the scores, if there are several."""


def adopt_onnx(adoption: OnnxAdoption) -> Card:
    """Write the artifact of a network to `adoption.folder`.

    Its file takes uint8 RGB (batch, height, width, 3) and gives float32 scores (batch, n_labels):
    scaling, layout and activation are a part of it, and so are weights of files beside it.

    Raises:
        AdoptionError: ONNX Runtime cannot run the network, it is not a classifier of this kind, or
            it does not match its description.
    """
    network = _load(adoption.onnx_path)
    model_input = _input(network)
    output = _output(network, adoption.output)
    layout = _layout(model_input, adoption.layout)
    size = _input_size(model_input, layout, adoption.input_size)
    found = _activation(network, output.name, adoption.activation)
    applied = None if adoption.activation in (None, "none") else found
    wrapped = wrap(network, model_input, output, layout, size, adoption, applied)
    folder = adoption.folder
    folder.mkdir(parents=True)
    path = folder / ONNX_NAME
    onnx.save(wrapped, path)
    images = [decoded(picture, size) for picture in adoption.pictures]
    scores = _scores(path, adoption, images)
    activation = found or ("softmax" if _adds_up(scores) else "sigmoid")
    if fault := find_score_fault(scores, activation):
        raise AdoptionError(
            f"the network gives {fault}: choose its own scaling, and --activation softmax or "
            "sigmoid if it gives logits"
        )
    pictures, result = wrapped.graph.input[0], wrapped.graph.output[0]
    result.type.tensor_type.shape.dim[1].dim_value = scores.shape[1]
    if _one_by_one(path, scores, images):
        # The network names its batch, but has the number of one picture in it.
        for one in (pictures, result):
            one.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(wrapped, path)
    card = Card(
        name=folder.parent.name,
        version=folder.name,
        preprocessing=PREPROCESSING,
        files={"onnx": describe_file(path)},
        memory_bytes=measure(path),
        created=datetime.now(UTC).date(),
        **adoption.card_fields() | {"activation": activation, "input_size": size},
    )
    write_card(card, folder)
    return card


def _load(path: Path) -> Any:
    """Read a network with all of its weights, also of files beside it."""
    try:
        network = onnx.load(path)
        if network.ByteSize() > MOST_BYTES:
            raise AdoptionError(
                f"the network has {network.ByteSize() / 1e9:.1f} GB, and a file can have 2 GB: "
                "export it with weights of float16"
            )
        onnx.checker.check_model(network)
    except AdoptionError:
        raise
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError) as error:
        if missing := re.search(r"should be stored in (.+), but it", str(error)):
            raise AdoptionError(
                f"its weights are in another file, {Path(missing[1]).name}, which is missing: put "
                f"that beside {path.name}, or export with external_data=False of torch.onnx.export"
            ) from error
        raise AdoptionError(
            f"no valid ONNX file ({_first_line(error)}): export it again"
        ) from error
    opset = next((one for one in network.opset_import if one.domain in ("", "ai.onnx")), None)
    if opset is None:
        network.opset_import.append(helper.make_opsetid("", OWN_OPSET))
    elif opset.version < OLDEST_OPSET:
        raise AdoptionError(
            f"the network has the opset {opset.version}: export it with {OWN_OPSET} or newer"
        )
    return network


def _input(network: Any) -> Any:
    # Before version 4 of the format, the weights were inputs too.
    weights = {one.name for one in network.graph.initializer}
    inputs = [one for one in network.graph.input if one.name not in weights]
    if len(inputs) != 1:
        raise AdoptionError(
            f"the network has {_named(inputs, 'inputs')}, but must have one, the picture: export "
            "it without the others"
        )
    (model_input,) = inputs
    if model_input.type.tensor_type.elem_type not in _INPUT_TYPES:
        kind = _type_name(model_input)
        raise AdoptionError(
            f"the network takes {kind}: export it to take {', '.join(_INPUT_TYPES.values())}"
        )
    return model_input


def _output(network: Any, name: str | None) -> Any:
    outputs = {one.name: one for one in network.graph.output}
    listed = _named(list(outputs.values()), "outputs")
    if name is None and len(outputs) > 1:
        raise AdoptionError(f"the network has {listed}: name the one with the scores with --output")
    if name is not None and name not in outputs:
        raise AdoptionError(f"the network has no output {name}, but {listed}: correct --output")
    output = outputs[name] if name else next(iter(outputs.values()))
    if not output.type.HasField("tensor_type"):
        raise AdoptionError(
            f"the output {output.name} is no tensor: with skl2onnx, convert with the option "
            "zipmap=False"
        )
    return output


def _named(values: list[Any], what: str) -> str:
    return f"{len(values)} {what} ({', '.join(f'{one.name} {_type_name(one)}' for one in values)})"


def _type_name(value: Any) -> str:
    """Such as float16 [N, 3, 224, 224]."""
    if not value.type.HasField("tensor_type"):
        return str(value.type.WhichOneof("value")).removesuffix("_type")
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    dims = [str(one or "?") for one in _dims(value)]
    return f"{'float32' if kind == 'float' else kind} [{', '.join(dims)}]"


def _dims(value: Any) -> list[int | str | None]:
    """The dimensions of a value: numbers, names, or None if it has neither."""
    shape = value.type.tensor_type.shape
    return [one.dim_value if one.dim_value > 0 else one.dim_param or None for one in shape.dim]


def _layout(model_input: Any, given: Layout | None) -> Layout | None:
    """The order of the dimensions; None for a row of numbers, as scikit-learn takes."""
    dims = _dims(model_input)
    if len(dims) == 2:
        return None
    shown: list[Layout] = []
    if len(dims) == 4:
        known: tuple[tuple[Layout, int], ...] = (("nchw", 1), ("nhwc", 3))
        shown = [name for name, channel in known if not isinstance(dims[channel], int)]
        shown = [name for name, channel in known if dims[channel] == 3] or shown
    if not shown:
        raise AdoptionError(
            f"the network takes {_type_name(model_input)}, but must take RGB: (batch, 3, height, "
            "width), (batch, height, width, 3) or (batch, height x width x 3)"
        )
    if given is None and len(shown) == 2:
        raise AdoptionError(
            f"the network takes {_type_name(model_input)}, which does not show the channels: add "
            "--layout nchw, as PyTorch has, or nhwc, as TensorFlow has"
        )
    if given is not None and given not in shown:
        raise AdoptionError(f"the network has the layout {shown[0]}: omit --layout")
    return given or shown[0]


def _input_size(
    model_input: Any, layout: Layout | None, given: tuple[int, int] | None
) -> tuple[int, int]:
    dims = _dims(model_input)
    if layout is None:
        if given is None:
            raise AdoptionError(
                f"the network takes {_type_name(model_input)}, rows of numbers: add --input-size "
                "HEIGHTxWIDTH"
            )
        if dims[1] not in (given[0] * given[1] * 3, None) and isinstance(dims[1], int):
            raise AdoptionError(
                f"the network takes rows of {dims[1]} numbers, and {given[0]}x{given[1]} pixels of "
                f"3 channels are {given[0] * given[1] * 3}: correct --input-size"
            )
        return given
    sides = dims[2:4] if layout == "nchw" else dims[1:3]
    known = tuple(side for side in sides if isinstance(side, int))
    if len(known) == 2:
        if given not in (None, known):
            raise AdoptionError(
                f"the network takes {known[0]}x{known[1]} pixels: omit --input-size"
            )
        return known[0], known[1]
    if given is None:
        raise AdoptionError("the network takes pictures of any size: add --input-size HEIGHTxWIDTH")
    for side, own in zip(sides, given, strict=True):
        if isinstance(side, int) and side != own:
            raise AdoptionError(
                f"the network takes {_type_name(model_input)}: correct --input-size"
            )
    return given


def _activation(network: Any, output: str, given: str | None) -> Activation | None:
    """The activation of the scores; None if the scores must show it."""
    makers = {name: node for node in network.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _PASSED:
        node = makers.get(node.input[0])
    found = None if node is None else _ACTIVATIONS.get(node.op_type)
    if found is not None:
        if given not in (None, "none"):
            raise AdoptionError(f"the network ends in a {found}: omit --activation")
        return found
    if given is None:
        raise AdoptionError(
            "the network does not end in a sigmoid or softmax: add --activation softmax or sigmoid "
            "if it gives logits, or none if it gives scores"
        )
    return None if given == "none" else "softmax" if given == "softmax" else "sigmoid"


def wrap(
    network: Any,
    model_input: Any,
    output: Any,
    layout: Layout | None,
    size: tuple[int, int],
    scaling: Description,
    activation: Activation | None,
) -> Any:
    """`network` as it is served, with nodes before and after its own."""
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(network)
    graph = wrapped.graph
    prefix = "piqueue_"
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    before = _before(prefix, model_input, layout, scaling, graph)
    after = _after(prefix, output, activation)
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    batch = _dims(model_input)[0]
    kept = [one for one in graph.input if one.name != model_input.name]
    del graph.input[:]
    pictures = helper.make_tensor_value_info(
        f"{prefix}pictures", TensorProto.UINT8, [batch or "batch", *size, 3]
    )
    graph.input.extend([pictures, *kept])
    scores = helper.make_tensor_value_info(
        f"{prefix}scores", TensorProto.FLOAT, [batch or "batch", None]
    )
    graph.output.append(scores)
    return wrapped


def _before(
    prefix: str, model_input: Any, layout: Layout | None, scaling: Description, graph: Any
) -> list[Any]:
    """The nodes that make the network's input of uint8 RGB (batch, height, width, 3)."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []

    def constant(name: str, values: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(values, f"{prefix}{name}"))
        return f"{prefix}{name}"

    kind = model_input.type.tensor_type.elem_type
    if kind == TensorProto.UINT8:
        if scaling.scaling != "raw":
            raise AdoptionError("the network takes integers of 0 to 255: use the scaling raw")
    else:
        if scaling.scaling == "caffe":
            steps.append(("Gather", [constant("bgr", np.array([2, 1, 0]))], {"axis": 3}))
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
        factors, offsets = scaling.factors_and_offsets()
        steps.append(("Mul", [constant("factors", np.array(factors, np.float32))], {}))
        steps.append(("Add", [constant("offsets", np.array(offsets, np.float32))], {}))
        if kind != TensorProto.FLOAT:
            steps.append(("Cast", [], {"to": kind}))
    if layout == "nchw":
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if layout is None:
        steps.append(("Flatten", [], {"axis": 1}))
    return _chain(f"{prefix}pictures", f"{prefix}input", steps, model_input.name)


def _after(prefix: str, output: Any, activation: Activation | None) -> list[Any]:
    """The nodes that make float32 scores (batch, n) of the network's output."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Cast", [], {"to": TensorProto.FLOAT}),
        ("Flatten", [], {"axis": 1}),
    ]
    if activation == "softmax":
        steps.append(("Softmax", [], {"axis": 1}))
    if activation == "sigmoid":
        steps.append(("Sigmoid", [], {}))
    return _chain(output.name, f"{prefix}output", steps, f"{prefix}scores")


def _chain(
    source: str, between: str, steps: list[tuple[str, list[str], dict[str, Any]]], target: str
) -> list[Any]:
    """Nodes that apply the steps, operation, further inputs and attributes, one after another."""
    nodes = []
    steps = steps or [("Identity", [], {})]
    for number, (operation, others, attributes) in enumerate(steps):
        last = number == len(steps) - 1
        result = target if last else f"{between}_{number}"
        nodes.append(helper.make_node(operation, [source, *others], [result], **attributes))
        source = result
    return nodes


def _scores(path: Path, adoption: OnnxAdoption, images: list[Any]) -> NDArray[np.float32]:
    """The scores of the pictures, one by one; checks their number, and that they are repeatable."""
    try:
        session = open_session(path)
    except ArtifactInvalid as error:
        raise AdoptionError(str(error)) from error
    (model_input,) = session.get_inputs()
    batch = model_input.shape[0] if isinstance(model_input.shape[0], int) else 1
    first = _run(session, [images[0]] * batch)
    if len(first) != batch or first.shape[1] != len(adoption.labels):
        raise AdoptionError(
            f"the network gives {first.size / batch:g} scores and there are {len(adoption.labels)} "
            "labels: give one label for each score, in their order"
        )
    scores = np.stack([_run(session, [image] * batch)[0] for image in images])
    if np.abs(scores[0] - first[0]).max() > TOLERANCE:
        raise AdoptionError(
            "the network gives other scores when it runs again: export it in evaluation mode, "
            "which is model.eval() in PyTorch"
        )
    return scores


def _run(session: Any, images: list[Any]) -> NDArray[np.float32]:
    try:
        (outputs,) = session.run(None, {session.get_inputs()[0].name: np.stack(images)})
    except ERRORS as error:
        raise AdoptionError(
            f"the network cannot be run ({short(error)}): correct --input-size, or export it again"
        ) from error
    return np.asarray(outputs)


def _adds_up(scores: NDArray[np.float32]) -> bool:
    return scores.shape[1] > 1 and np.allclose(scores.sum(axis=1), 1, rtol=0, atol=0.01)


def _one_by_one(path: Path, scores: NDArray[np.float32], images: list[Any]) -> bool:
    """Whether two pictures in one batch fail, or get other scores than alone."""
    session = open_session(path)
    if isinstance(session.get_inputs()[0].shape[0], int):
        return False
    try:
        pair = _run(session, [images[0], images[-1]])
    except AdoptionError:
        return True
    alone = scores[[0, -1]]
    return pair.shape != alone.shape or bool(np.abs(pair - alone).max() > TOLERANCE)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
