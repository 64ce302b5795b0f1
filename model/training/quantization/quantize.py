"""Adds the int8 variant to an artifact, if its scores are as good as those of the float variant."""

import csv
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from tensorflow.lite.python.convert_phase import ConverterError

from model.artifact.calibration import calibrated, logits
from model.artifact.card import (
    Activation,
    Calibration,
    Card,
    Variant,
    describe_file,
    find_file,
    load_card,
    write_card,
)
from model.artifact.head import Head
from model.engines.footprint import measure
from model.training.data.arrays import Rows
from model.training.data.dataset import Annotations
from model.training.evaluation import Scores, evaluate
from model.training.quantization.bias_correction import corrected_bias
from model.training.teach import problems, teach

Pixels = NDArray[np.uint8]
# Figures for the card, and the bounds that they miss.
Judgement = tuple[dict[str, Any], list[str]]
Also = Callable[[Card, bytes, int | None], Judgement]

INT8_NAME = "model.int8.tflite"
# Pictures on which the ranges of the activations are measured, and the error of each layer.
SAMPLE_COUNT, DEBUG_COUNT = 100, 20
# Fewer pictures do not show whether a bound is kept.
LEAST_PICTURES = 50
# Heads are taught on the features of up to so many pictures, which are in memory.
MOST_TAUGHT = 5000
# Pooling and the head stay in float: an int8 sigmoid has 256 steps, so that scores tie.
FLOAT_OPS = ["MEAN", "FULLY_CONNECTED", "LOGISTIC", "SOFTMAX"]
# So many of the most sensitive layers stay in float too: the first number that keeps the bounds.
# None: all activations stay in float.
FLOAT_LAYERS = (0, 4, 10, None)
# With None, the weights of these are int8; depthwise convolutions are faster in float.
INT8_WEIGHTS = ("CONV_2D", "FULLY_CONNECTED")
# What int8 may change: labels beyond their thresholds, first answers of a softmax, these metrics.
MOST_FLIPPED, LEAST_SAME_FIRST, MOST_LOST = 0.005, 0.95, 0.005
BOUNDED = ("macro_average_precision", "binary_accuracy")

log = structlog.get_logger()


class Quantizer:
    """Quantizes a network; `samples`, (n, height, width, 3) uint8, show its activations."""

    def __init__(self, network: Any, samples: Pixels) -> None:
        self._network, self._samples = network, samples
        self._debugger = self._convert([])
        self._layers: list[tuple[str, float]] = []

    def quantized(self, float_layers: int | None) -> bytes:
        """Return the LiteRT model with `float_layers` of the most sensitive layers in float.

        With None, activations are float; each operation with int8 weights quantizes its input.
        """
        if float_layers is None:
            return self._with_int8_weights()
        debugger = self._debugger
        if float_layers:
            sensitive = self.most_sensitive()[:float_layers]
            debugger = self._convert([self._layers[layer][0] for layer in sensitive])
            # Each export may name the same layers otherwise.
            named = _errors(debugger)
            with _quiet():
                debugger.options = _options([named[layer][0] for layer in sensitive])
        with _quiet():
            return bytes(debugger.get_nondebug_quantized_model())

    def most_sensitive(self) -> list[int]:
        """The indexes of the layers by their error in steps of their scale, the largest first."""
        self._layers = self._layers or _errors(self._debugger)
        errors = [error for _, error in self._layers]
        return sorted(range(len(errors)), key=errors.__getitem__, reverse=True)

    def _with_int8_weights(self) -> bytes:
        import tensorflow as tf
        from ai_edge_quantizer import qtyping
        from ai_edge_quantizer.quantizer import Quantizer as WeightQuantizer

        with tempfile.TemporaryDirectory() as scratch:
            self._network.export(scratch, format="tf_saved_model", verbose=False)
            as_float = tf.lite.TFLiteConverter.from_saved_model(scratch).convert()
        weights = qtyping.TensorQuantizationConfig(
            num_bits=8, granularity=qtyping.QuantGranularity.CHANNELWISE
        )
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.INTEGER
        )
        quantizer = WeightQuantizer(bytearray(as_float))
        for name in INT8_WEIGHTS:
            operation = qtyping.TFLOperationName(name)
            quantizer.update_quantization_recipe(".*", operation, config)
        with redirect_stderr(io.StringIO()):  # its progress bar
            return bytes(quantizer.quantize(enable_progress_report=False).quantized_model)

    def _convert(self, left_in_float: Sequence[str]) -> Any:
        """A debugger of the network; the bias of these layers is not corrected."""
        import tensorflow as tf

        def dataset(count: int) -> Iterator[list[Pixels]]:
            return ([sample[np.newaxis]] for sample in self._samples[:count])

        with tempfile.TemporaryDirectory() as scratch, _quiet():
            with corrected_bias(self._network, self._samples, left_in_float):
                self._network.export(scratch, format="tf_saved_model", verbose=False)
            converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: dataset(len(self._samples))
            return tf.lite.experimental.QuantizationDebugger(
                converter=converter,
                debug_dataset=lambda: dataset(DEBUG_COUNT),
                debug_options=_options([]),
            )


def _options(float_nodes: list[str]) -> Any:
    import tensorflow as tf

    return tf.lite.experimental.QuantizationDebugOptions(
        denylisted_ops=FLOAT_OPS, denylisted_nodes=float_nodes
    )


def _errors(debugger: Any) -> list[tuple[str, float]]:
    """The name of each layer, and its error in steps of its scale."""
    with _quiet():
        debugger.run()
    written = io.StringIO()
    debugger.layer_statistics_dump(written)
    return [
        (row["tensor_name"], float(row["mean_squared_error"]) ** 0.5 / float(row["scale"]))
        for row in csv.DictReader(io.StringIO(written.getvalue()))
    ]


def add_int8(
    network: Any,
    folder: Path,
    samples: Pixels | Rows,
    judged: Pixels | Rows,
    truth: NDArray[Any] | None = None,
    also: Also | None = None,
) -> str | None:
    """Add the int8 variant of a network to its artifact in `folder`.

    If the artifact has a head, `network` is its backbone.

    `samples` are pictures as in practice, and others, `judged`, show what int8 changes; `truth`
    (n, n_labels) are their labels, if known. `also` judges a file further: it gets the card, the
    content and its number of FLOAT_LAYERS.

    Returns None, or why the variant was not added, which is logged too.
    """
    reason = _add_int8(network, folder, samples, judged, truth, also)
    if reason:
        log.warning("no int8 variant", reason=reason)
    return reason


def _add_int8(
    network: Any,
    folder: Path,
    samples: Pixels | Rows,
    judged: Pixels | Rows,
    truth: NDArray[Any] | None,
    also: Also | None,
) -> str | None:
    if len(judged) < LEAST_PICTURES:
        return f"its check needs {LEAST_PICTURES} pictures, and there are {len(judged)}"
    card = load_card(folder)
    as_float = (folder / card.files["litert"].path).read_bytes()
    head = None
    if "head" in card.files:
        head = Head.load(find_file(card, folder, "head"), len(card.labels))

    def raw(content: bytes, images: Pixels | Rows) -> Scores:
        return raw_scores(content, images, card.activation, head)

    before = calibrated(raw(as_float, judged), card.calibration, card.activation)
    samples = some(samples)
    on_samples = raw(as_float, samples)
    try:
        quantizer = Quantizer(network, samples)
    except (ConverterError, ValueError, RuntimeError) as error:
        first_line = str(error).strip().partition("\n")[0]
        return f"the network cannot be quantized: {first_line}"
    faults: list[str] = []
    for float_layers in FLOAT_LAYERS:
        if float_layers and float_layers >= len(quantizer.most_sensitive()):
            continue  # no layer would be int8
        content = quantizer.quantized(float_layers)
        calibration = card.calibration
        if card.activation == "sigmoid":
            alignment = align(on_samples, raw(content, samples))
            calibration = _joined(alignment, card.calibration)
        after = calibrated(raw(content, judged), calibration, card.activation)
        metrics, faults = judge(card, before, after, truth)
        if also and not faults:
            further, faults = also(card, content, float_layers)
            metrics |= further
        if not faults:
            _write(folder, card, content, calibration, metrics)
            return None
        log.info("int8 misses its bounds", float_layers=float_layers, faults=faults)
    return "; ".join(faults)


def judge(
    card: Card, before: Scores, after: Scores, truth: NDArray[Any] | None, split: str = "validation"
) -> Judgement:
    """Compare the scores of int8, `after`, with those of float, `before`, both calibrated."""
    figures: dict[str, Any] = {"pictures": len(after)}
    figures["largest_difference"] = round(float(np.abs(after - before).max()), 4)
    faults = []
    if card.activation == "softmax":
        same = float((before.argmax(axis=1) == after.argmax(axis=1)).mean())
        figures["same_first_answer"] = round(same, 4)
        if same < LEAST_SAME_FIRST:
            faults.append(
                f"{same:.1%} of the first answers are the same, not {LEAST_SAME_FIRST:.0%}"
            )
    else:
        thresholds = np.asarray(card.thresholds)
        flipped = float(((before >= thresholds) != (after >= thresholds)).mean())
        figures["flipped"] = round(flipped, 4)
        if flipped > MOST_FLIPPED:
            faults.append(f"{flipped:.2%} of the labels change, more than {MOST_FLIPPED:.1%}")
    metrics = {f"{split}_against_float": figures}
    if truth is not None:
        old, new = (
            evaluate(truth, each, card.thresholds, card.labels, card.activation)
            for each in (before, after)
        )
        metrics[split] = new
        for name in BOUNDED:
            if new[name] < old[name] - MOST_LOST:
                faults.append(f"{name} ({split}) is {new[name]}, and {old[name]} in float")
    return metrics, faults


def judge_taught(
    card: Card, as_float: Scores, as_int8: Scores, annotations: Annotations
) -> Judgement:
    """Judge heads that are taught on the features of one variant by those of the other.

    The features (n, n_features) are those of the pictures of `annotations`. `piqueue teach` gives
    a head both files of its backbone, whichever gave the features that it was taught on.
    """
    is_val = annotations.is_val
    train, val = (annotations.of(np.flatnonzero(chosen)) for chosen in (~is_val, is_val))
    if problems(train, card.labels):
        return {}, ["the pictures are too few to teach a head"]
    metrics, faults = {}, []
    for name, own, other in (("float", as_float, as_int8), ("int8", as_int8, as_float)):
        taught = teach(own[~is_val], train, card.labels, card.activation)
        as_taught = card.model_copy(update={"thresholds": taught.thresholds})
        split = f"a head taught on {name}"
        judged, missed = judge(
            as_taught,
            taught.scores_of(own[is_val]),
            taught.scores_of(other[is_val]),
            val.labels,
            split,
        )
        metrics[f"taught_on_{name}_against_other"] = judged[f"{split}_against_float"]
        faults += [f"{split}: {fault}" for fault in missed]
    return metrics, faults


def raw_scores(
    content: bytes, images: Pixels | Rows, activation: Activation, head: Head | None = None
) -> Scores:
    """The scores of a LiteRT model, and of its `head` if it has one, before calibration."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (pictures,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        interpreter.set_tensor(pictures["index"], image[np.newaxis])
        interpreter.invoke()
        found.append(interpreter.get_tensor(outputs["index"])[0].copy())
    given = np.array(found)
    return given if head is None else head.scores(given, activation)


def some(images: Pixels | Rows) -> Pixels:
    """Up to `SAMPLE_COUNT` of the images, from all parts of the sequence."""
    return np.asarray(images[some_of(len(images), SAMPLE_COUNT)])


def some_of(count: int, most: int) -> NDArray[np.intp]:
    """The indexes of up to `most` of `count` pictures, from all parts of the sequence."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.intp)


def align(to: Scores, scores: Scores) -> Calibration:
    """The calibration that brings sigmoid `scores` nearest to the scores `to`, both raw.

    A weighted linear fit of the logits: uncertain scores, which decide about labels, weigh most.
    """
    slopes, offsets = [], []
    for aim, given, share in zip(logits(to).T, logits(scores).T, to.T, strict=True):
        weights = share * (1 - share) + 1e-6
        mean_aim, mean = np.average(aim, weights=weights), np.average(given, weights=weights)
        spread = np.average((given - mean) ** 2, weights=weights)
        both = np.average((given - mean) * (aim - mean_aim), weights=weights)
        slope = max(both / spread, 0.01) if spread > 0 else 1.0
        slopes.append(float(slope))
        offsets.append(float(mean_aim - slope * mean))
    return Calibration(slopes=tuple(slopes), offsets=tuple(offsets))


def _joined(first: Calibration, then: Calibration | None) -> Calibration:
    """One calibration for two, of sigmoids."""
    slopes, offsets = np.asarray(first.slopes), np.asarray(first.offsets)
    if then is not None:
        offsets = offsets * then.slopes + then.offsets
        slopes = slopes * then.slopes
    return Calibration(
        slopes=tuple(slopes.round(4).tolist()),
        offsets=tuple(offsets.round(4).tolist()),
        fitted_on="the scores of the float variant",
    )


def _write(
    folder: Path,
    card: Card,
    content: bytes,
    calibration: Calibration | None,
    metrics: dict[str, Any],
) -> None:
    path = folder / INT8_NAME
    path.write_bytes(content)
    variant = Variant(**describe_file(path).model_dump(), calibration=calibration, metrics=metrics)
    memory_bytes = max(card.memory_bytes, measure(path))
    update = {"variants": {"int8": variant}, "memory_bytes": memory_bytes}
    write_card(card.model_copy(update=update), folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings of the converter and its interpreter that do not apply here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter", UserWarning)
        yield
