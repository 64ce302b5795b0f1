"""Adoption of ONNX classifiers: the scores are those of the network, or it is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model.artifact.card import ArtifactInvalid, load_card
from model.predictor import load_predictor, verify_artifact
from model.training.adopt_onnx import adopt_onnx
from model.training.adoption import AdoptionError
from tests.model.colours import HEIGHT, WIDTH, calculated, pictures
from tests.model.onnx_networks import (
    adopted,
    adoption,
    colours,
    network,
    write_colours_onnx,
)

FLOAT, FLOAT16, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
UINT8, INT64 = TensorProto.UINT8, TensorProto.INT64
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
OWN_MEAN, OWN_STD = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)
# What the pixel values 0 to 255 become.
SCALED: dict[str, Any] = {
    "tf": lambda means: means / 127.5 - 1,
    "unit": lambda means: means / 255,
    "raw": lambda means: means,
    "torch": lambda means: (means / 255 - MEAN) / STD,
    "caffe": lambda means: means[:, ::-1] - [103.939, 116.779, 123.68],
    "mean_std": lambda means: (means / 255 - OWN_MEAN) / OWN_STD,
}


def scores(folder: Path, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    assert verify_artifact(folder) == load_card(folder)
    predictions = load_predictor(folder, threads=2).predict(list(images))
    return np.array([prediction.scores for prediction in predictions])


@pytest.mark.parametrize(
    ("scaling", "nhwc"), [(scaling, bool(number % 2)) for number, scaling in enumerate(SCALED)]
)
def test_the_scores_are_those_of_the_network_on_pixels_scaled_as_declared(
    tmp_path: Path, scaling: str, nhwc: bool
) -> None:
    folder = tmp_path / "own" / "1"
    kernel = np.array([[1, 0, 0], [0, 1, 1], [0.5, 0, 1]], np.float32)
    kernel /= 100 if scaling in ("raw", "caffe") else 1
    own = {"mean": OWN_MEAN, "std": OWN_STD} if scaling == "mean_std" else {}
    made = colours(kernel=kernel, bias=np.array([0.1, 0, -0.1], np.float32), nhwc=nhwc)
    card = adopted(folder, made, scaling=scaling, activation="softmax", top_k=2, **own)
    assert (card.activation, card.scaling, card.top_k) == ("softmax", scaling, 2)
    assert (card.input_size, card.training.keys()) == ((HEIGHT, WIDTH), own.keys())
    images = pictures(5)
    logits = SCALED[scaling](images.mean(axis=(1, 2))) @ kernel + [0.1, 0, -0.1]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores(folder, images), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (colours("Sigmoid"), {}),
        (colours("Sigmoid", opset=7), {}),
        (colours("Sigmoid", batch=4), {}),
        (colours("Sigmoid", size=("h", "w")), {"input_size": (HEIGHT, WIDTH)}),
        (colours("Sigmoid", size=(None, WIDTH)), {"input_size": (HEIGHT, WIDTH)}),
        (colours("Sigmoid"), {"activation": "none"}),
        (colours(), {"activation": "sigmoid"}),
    ],
    ids=["plain", "opset", "fixed", "any-size", "any-height", "scores", "logits"],
)
def test_a_network_of_another_kind_has_the_same_scores(
    tmp_path: Path, made: Any, says: dict[str, Any]
) -> None:
    adopted(tmp_path / "own" / "1", made, **says)
    images = pictures(9)
    np.testing.assert_allclose(
        scores(tmp_path / "own" / "1", images), calculated(images), atol=1e-4
    )


def test_a_network_of_float16_gets_float16(tmp_path: Path) -> None:
    adopted(tmp_path / "own" / "1", colours(kind=FLOAT16), activation="sigmoid")
    images = pictures(4)
    np.testing.assert_allclose(
        scores(tmp_path / "own" / "1", images), calculated(images), atol=0.01
    )


def pixels_to_scores(kind: int, shape: Any, weights: NDArray[Any], *before: Any) -> Any:
    """Sigmoids of all pixels times weights."""
    scores_kind = helper.np_dtype_to_tensor_dtype(weights.dtype)
    nodes = [
        *before,
        helper.make_node("Flatten", ["floats" if before else "pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
    ]
    return network(
        nodes, {"pixels": (kind, shape)}, {"scores": (scores_kind, ["N", 3])}, {"weights": weights}
    )


def test_a_network_that_takes_integers_gets_the_pixels(tmp_path: Path) -> None:
    folder = tmp_path / "own" / "1"
    weights = np.random.default_rng(1).normal(0, 1e-4, (HEIGHT * WIDTH * 3, 3)).astype(np.float32)
    cast = helper.make_node("Cast", ["pixels"], ["floats"], to=FLOAT)
    made = pixels_to_scores(UINT8, ["N", 3, HEIGHT, WIDTH], weights, cast)
    with pytest.raises(AdoptionError, match="takes integers of 0 to 255: use the scaling raw"):
        adopted(folder, made)
    adopted(folder, made, scaling="raw")
    images = pictures(3)
    flat = images.transpose(0, 3, 1, 2).reshape(3, -1)
    np.testing.assert_allclose(
        scores(folder, images), 1 / (1 + np.exp(-(flat @ weights))), atol=1e-4
    )


def test_a_network_of_rows_gets_the_pixels_as_scikit_learn_does(tmp_path: Path) -> None:
    folder = tmp_path / "own" / "1"
    weights = np.random.default_rng(2).normal(0, 0.01, (4 * 5 * 3, 3))
    made = pixels_to_scores(DOUBLE, ["N", 60], weights)
    with pytest.raises(AdoptionError, match=r"double \[N, 60\], rows of numbers: add --input-size"):
        adopted(folder, made)
    with pytest.raises(AdoptionError, match=r"rows of 60 numbers, and 5x5 pixels .* are 75"):
        adopted(folder, made, input_size=(5, 5))
    adopted(folder, made, input_size=(4, 5))
    images = np.random.default_rng(3).integers(0, 256, (6, 4, 5, 3), np.uint8)
    expected = 1 / (1 + np.exp(-(images.reshape(6, -1) / 255 @ weights)))
    np.testing.assert_allclose(scores(folder, images), expected, atol=1e-4)


def test_the_named_one_of_several_outputs_is_used(tmp_path: Path) -> None:
    made = colours("Sigmoid")
    made.graph.output.insert(0, helper.make_tensor_value_info("means", FLOAT, ["N", 3]))
    listed = r"2 outputs \(means float32 \[N, 3\], scores float32 \[N, 3\]\)"
    with pytest.raises(
        AdoptionError, match=f"{listed}: name the one with the scores with --output"
    ):
        adopted(tmp_path / "own" / "1", made)
    with pytest.raises(AdoptionError, match=f"no output probs, but {listed}: correct --output"):
        adopted(tmp_path / "own" / "1", made, output="probs")
    adopted(tmp_path / "own" / "1", made, output="scores")
    images = pictures(3)
    np.testing.assert_allclose(
        scores(tmp_path / "own" / "1", images), calculated(images), atol=1e-4
    )


def test_scores_that_add_up_are_those_of_a_softmax(tmp_path: Path) -> None:
    made = colours("Softmax")
    made.graph.node.append(helper.make_node("Dropout", ["scores"], ["dropped"]))
    made.graph.output[0].name = "dropped"
    with pytest.raises(AdoptionError, match="does not end in a sigmoid or softmax: add --activ"):
        adopted(tmp_path / "own" / "1", made)
    assert adopted(tmp_path / "own" / "1", made, activation="none").activation == "softmax"


def test_weights_of_another_file_become_part_of_the_artifact(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    onnx.save(
        colours("Sigmoid"),
        path,
        save_as_external_data=True,
        location="network.data",
        size_threshold=0,
    )
    described = adoption(path, tmp_path / "own" / "1")
    hidden = (tmp_path / "network.data").rename(tmp_path / "other.data")
    with pytest.raises(AdoptionError, match=r"network\.data, .*: put that beside network\.onnx"):
        adopt_onnx(described)
    hidden.rename(tmp_path / "network.data")
    adopt_onnx(described)
    (tmp_path / "network.data").unlink()
    assert {one.name for one in (tmp_path / "own" / "1").iterdir()} == {"card.json", "model.onnx"}
    images = pictures(3)
    np.testing.assert_allclose(
        scores(tmp_path / "own" / "1", images), calculated(images), atol=1e-4
    )


def test_an_adopted_file_can_be_adopted_again(tmp_path: Path) -> None:
    write_colours_onnx(tmp_path / "own" / "1")
    made = onnx.load(tmp_path / "own" / "1" / "model.onnx")
    adopted(tmp_path / "other" / "1", made, scaling="raw")
    images = pictures(3)
    expected = calculated(images)
    np.testing.assert_allclose(scores(tmp_path / "other" / "1", images), expected, atol=1e-4)


def test_a_network_that_only_names_its_batch_gets_one_picture_at_a_time(tmp_path: Path) -> None:
    made = colours("Sigmoid")
    (flatten,) = [node for node in made.graph.node if node.op_type == "Flatten"]
    flatten.CopyFrom(helper.make_node("Reshape", ["pooled", "one"], ["means"]))
    made.graph.initializer.append(helper.make_tensor("one", INT64, [2], [1, 3]))
    adopted(tmp_path / "own" / "1", made)
    images = pictures(5)
    np.testing.assert_allclose(
        scores(tmp_path / "own" / "1", images), calculated(images), atol=1e-4
    )
    written = onnx.load(tmp_path / "own" / "1" / "model.onnx")
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def with_nodes(*nodes: Any) -> Any:
    """A network with nodes between its logits and its output, `made`."""
    made = colours()
    made.graph.node.extend(nodes)
    made.graph.output[0].name = "made"
    return made


TWO_INPUTS = network(
    [helper.make_node("Add", ["pixels", "noise"], ["scores"])],
    {"pixels": (FLOAT, ["N", 3]), "noise": (FLOAT, ["N", 3])},
    {"scores": (FLOAT, ["N", 3])},
)
RANDOM = with_nodes(
    helper.make_node("RandomUniformLike", ["logits"], ["random"]),
    helper.make_node("Add", ["logits", "random"], ["moved"]),
    helper.make_node("Sigmoid", ["moved"], ["made"]),
)


def of_maps() -> Any:
    """A classifier that gives a list of maps, as skl2onnx does by default."""
    made = colours("Softmax")
    zipped = helper.make_node(
        "ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]
    )
    made.graph.node.append(zipped)
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    kind = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
    kind = helper.make_sequence_type_proto(kind)
    made.graph.output[0].CopyFrom(helper.make_value_info("maps", kind))
    return made


@pytest.mark.parametrize(
    ("made", "says", "message"),
    [
        (colours(), {}, "add --activation softmax or sigmoid if it gives logits, or none if"),
        (colours("Sigmoid"), {"activation": "softmax"}, "ends in a sigmoid: omit --activation"),
        (colours(), {"activation": "none"}, "scores of .*, not 0 to 1: choose its own scaling"),
        (colours("Sigmoid"), {"labels": tuple("abcd"), "thresholds": (0.5,) * 4}, "gives 3 scores"),
        (colours("Sigmoid"), {"input_size": (9, 9)}, "takes 24x32 pixels: omit --input-size"),
        (colours("Sigmoid", size=(24, "w")), {"input_size": (9, 9)}, "correct --input-size"),
        (colours("Sigmoid", size=("h", "w")), {}, "of any size: add --input-size"),
        (colours("Sigmoid"), {"layout": "nhwc"}, "has the layout nchw: omit --layout"),
        (
            colours("Sigmoid", kind=INT64),
            {},
            r"takes int64 \[N, 3, 24, 32\]: export it to take flo",
        ),
        (TWO_INPUTS, {}, r"has 2 inputs \(pixels float32 .*noise .*\), but must have one"),
        (of_maps(), {}, "the output maps is no tensor: .* zipmap=False"),
        (RANDOM, {}, r"other scores when it runs again: .* model\.eval"),
        (colours("Sigmoid", opset=6), {}, "has the opset 6: export it with 13 or newer"),
        (
            colours("Sigmoid", opset=onnx.defs.onnx_opset_version() + 9),
            {},
            r"ONNX Runtime [0-9.]+ cannot load .*an older opset, such as opset_version=18",
        ),
        (
            colours("Sigmoid", kind=DOUBLE),
            {},
            r"cannot load .*implementation for GlobalAveragePool.*: export it with standard",
        ),
        (
            with_nodes(helper.make_node("Wavelet", ["logits"], ["made"], domain="own")),
            {"activation": "sigmoid"},
            r"cannot load .*Wavelet.*: export it with standard operators",
        ),
        (
            with_nodes(helper.make_node("MatMul", ["logits", "logits"], ["made"])),
            {"activation": "sigmoid"},
            r"cannot (be run|load)",
        ),
    ],
)
def test_a_network_that_cannot_be_used_is_refused(
    tmp_path: Path, made: Any, says: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdoptionError, match=message):
        adopted(tmp_path / "own" / "1", made, **says)
    assert not (tmp_path / "own" / "1" / "card.json").exists()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (["N", 1, 24, 32], r"takes float32 \[N, 1, 24, 32\], but must take RGB"),
        (["N", 3, 24], r"takes float32 \[N, 3, 24\], but must take RGB"),
        (["N", "a", "b", "c"], "does not show the channels: add --layout nchw"),
    ],
)
def test_an_input_that_is_no_picture_is_refused(
    tmp_path: Path, shape: list[int | str], message: str
) -> None:
    weights = np.zeros((HEIGHT * WIDTH * 3, 3), np.float32)
    with pytest.raises(AdoptionError, match=message):
        adopted(tmp_path / "own" / "1", pixels_to_scores(FLOAT, shape, weights))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x09" * 40])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(content)
    with pytest.raises(AdoptionError, match=r"no valid ONNX file .*: export it again"):
        adopt_onnx(adoption(path, tmp_path / "own" / "1"))


def test_a_file_that_its_card_does_not_describe_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "own" / "1"
    write_colours_onnx(folder)
    path = folder / "card.json"
    card = json.loads(path.read_text()) | {"labels": ["a", "b"], "thresholds": [0.5, 0.5]}
    path.write_text(json.dumps(card))
    with pytest.raises(ArtifactInvalid, match=r"model\.onnx takes .* add the original file again"):
        load_predictor(folder)


def test_a_session_adds_no_thread_to_the_process_and_needs_no_onnx(tmp_path: Path) -> None:
    write_colours_onnx(tmp_path / "own" / "1")
    script = f"""
import os, sys
from pathlib import Path
import numpy as np, onnxruntime
from model.predictor import load_predictor
before = len(os.listdir("/proc/self/task"))
predictor = load_predictor(Path({str(tmp_path / "own" / "1")!r}), threads=4)
predictor.warm_up()
predictor.predict([np.zeros(({HEIGHT}, {WIDTH}, 3), np.uint8)] * 9)
print(len(os.listdir("/proc/self/task")) - before, *{{"onnx", "tensorflow"}} & sys.modules.keys())
"""
    env = {**os.environ, "OMP_NUM_THREADS": "3"}
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env
    )
    assert finished.stdout.split() == ["0"]


def test_an_installation_without_onnx_runtime_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_colours_onnx(tmp_path / "own" / "1")
    monkeypatch.setattr("model.predictor.find_spec", lambda _name: None)
    with pytest.raises(ArtifactInvalid, match=r"own@1 needs ONNX Runtime, .*\[onnx\].*ONNX=1"):
        load_predictor(tmp_path / "own" / "1")


def test_memory_includes_the_weights(tmp_path: Path) -> None:
    weights = np.zeros((HEIGHT * WIDTH * 3, 3000), np.float32)
    made = pixels_to_scores(FLOAT, ["N", 3, HEIGHT, WIDTH], weights)
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3000
    labels = tuple(map(str, range(3000)))
    card = adopted(tmp_path / "own" / "1", made, labels=labels, thresholds=(0.5,) * 3000)
    assert weights.nbytes < card.memory_bytes < 3 * weights.nbytes
    small = adopted(tmp_path / "small" / "1", colours("Sigmoid"))
    assert small.memory_bytes < 3_000_000
