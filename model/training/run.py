"""Runs a training from CSV file to artifact: fits by fold, their mean, calibration and card."""

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import structlog
from numpy.typing import NDArray

from model.artifact.calibration import calibrated
from model.artifact.card import Card
from model.artifact.score_counts import count_scores
from model.training.backbones import BACKBONES
from model.training.bootstrap import draw_figures, interval
from model.training.checkpoints import Checkpoints, in_order
from model.training.config import DataConfig, TrainingConfig, TrainingError
from model.training.data.arrays import Rows, chosen_rows, predicted
from model.training.data.dataset import (
    Annotations,
    DataProblems,
    Labels,
    Pixels,
    join_groups,
    read_data,
    stratified_folds,
    write_split,
)
from model.training.data.near_duplicates import near_duplicates
from model.training.evaluation import (
    Scores,
    calibration_error,
    cross_calibrated,
    decide,
    evaluate,
)
from model.training.export import LITERT_NAME, round_to_float16, write_artifact
from model.training.network.build import Network, build_network
from model.training.network.features import (
    Features,
    TrainingSet,
    features_of,
    make_training_set,
)
from model.training.network.fit import Fit
from model.training.quantization.quantize import (
    MOST_TAUGHT,
    Judgement,
    Quantizer,
    add_int8,
    align,
    judge,
    judge_taught,
    raw_scores,
    some,
    some_of,
)
from model.training.training_log import TrainingLog, from_array

log = structlog.get_logger()

Weights = list[NDArray[Any]]

SPLIT_NAME = "labels.csv"
"""In the folder of a run: the pictures with the split that was made, if their rows are in none."""

_FITTED_ON = (
    "out-of-fold scores of the train split by means of fits, as the model is one; the validation "
    "split was not used"
)
# Figures of the card that have no interval.
_SINGLE = "expected_calibration_error_uncalibrated"
_LIBRARIES = ("ai-edge-litert", "imgaug", "keras", "numpy", "pillow", "scikit-learn", "tensorflow")
# Settings that are paths of one machine.
_PATHS = {"model_path", "runs_path", "images_base_path", "base_weights", "sources"}


def train(csv_path: Path, data: DataConfig, training: TrainingConfig) -> Card:
    """Train on the `train` rows of `csv_path`, measure on `val`, write `training.model_path`.

    An interrupted run is resumed if it is started again with the same settings, rows and pictures.
    If the rows are in no split, those of the one that is made are written to the folder of the run.
    Raises TrainingError before any training if one of these is wrong.
    """
    if training.model_path.exists():
        raise TrainingError(
            f"model_path: {training.model_path} exists, and a version never changes: "
            "use the next version number"
        )
    annotations, images, warnings = read_data(csv_path, data, training.folds, training.run_path)
    for warning in warnings:
        log.warning("data problem", csv_path=str(csv_path), warning=warning)
    network = build_network(data, training)
    round_to_float16(network.full)  # so that the features are those of the exported model
    plain = features_of(network, images, training)
    annotations, pairs = _group(csv_path, annotations, images, plain, network, data, training)
    run_path = training.run_path
    fingerprint = _fingerprint(network, annotations, images, training)
    checkpoints = Checkpoints(run_path / "checkpoints", fingerprint)
    training_log = TrainingLog(run_path)

    is_val, labels, groups = annotations.is_val, annotations.labels, annotations.groups
    train_names = [name for name, val in zip(annotations.names, is_val, strict=True) if not val]
    log.info("pictures read", train_count=len(train_names), val_count=int(is_val.sum()))
    images_train, images_val = chosen_rows(images, ~is_val), chosen_rows(images, is_val)
    training_set = make_training_set(
        *(network, images_train, chosen_rows(plain, ~is_val), labels[~is_val]),
        *(training, checkpoints),
    )
    folds = stratified_folds(train_names, training_set.labels, training.folds, groups[~is_val])
    raw, without = fit_folds(network, training_set, folds, training, checkpoints, training_log)

    activation = data.activation
    decision = decide(training_set.labels, raw, folds, _FITTED_ON, activation)
    calibration = decision.calibration

    def measured(
        split: str, truth: Labels, before: Scores, scores: Scores, thresholds: Any, used: Any
    ) -> tuple[dict[str, float], dict[str, Any]]:
        figures = evaluate(truth, scores, thresholds, data.targets, activation)
        figures[_SINGLE] = round(calibration_error(truth, before), 4)
        log.info(f"scored {split}", **figures)
        draws = draw_figures(truth, scores, thresholds, activation, used)
        return figures, {name: interval(values) for name, values in draws.items()}

    out_of_fold, out_of_fold_intervals = measured(
        "out of fold",
        training_set.labels,
        raw,
        decision.scores,
        decision.used_thresholds,
        groups[~is_val],
    )
    round_to_float16(network.full)
    raw = predicted(network.full, images_val, training.batch_size)
    scores = calibrated(raw, calibration, activation)
    validation, validation_intervals = measured(
        "the validation split",
        labels[is_val],
        raw,
        scores,
        decision.thresholds,
        groups[is_val],
    )
    fields = {
        "labels": data.targets,
        "thresholds": decision.thresholds,
        "activation": activation,
        "input_size": data.resize_shape,
        "scaling": BACKBONES[training.backbone].scaling,
        "calibration": calibration,
        "metrics": {
            "validation": validation,
            "out_of_fold": out_of_fold,
            "intervals_95": {
                "validation": validation_intervals,
                "out_of_fold": out_of_fold_intervals,
            },
        },
        "score_counts": count_scores(scores, data.targets),
        "training": {
            "settings": training.model_dump(mode="json", exclude=_PATHS)
            | data.model_dump(mode="json", exclude=_PATHS)
            | {"base_weights_sha256": network.base_sha256},
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in _LIBRARIES},
            "data_sha256": _data_fingerprint(annotations, images),
            "pictures": {"train": len(train_names), "validation": int(is_val.sum())},
            "groups": len(np.unique(groups)),
            "near_duplicates": len(pairs),
            "near_duplicates_across_splits": sum(bool(is_val[a] != is_val[b]) for a, b in pairs),
        },
        "sources": data.sources,
    }

    def add(fresh: Path) -> None:
        if training.int8:
            taught_on = some_of(len(images), MOST_TAUGHT)
            pictures, labelled = Rows(images, taught_on), annotations.of(taught_on)
            as_float = raw_scores((fresh / LITERT_NAME).read_bytes(), pictures, activation)

            def further(card: Card, content: bytes, float_layers: int | None) -> Judgement:
                as_int8 = raw_scores(content, pictures, activation)
                taught, faults = judge_taught(card, as_float, as_int8, labelled)
                if faults:
                    return taught, faults
                quantized = quantize_folds(network, without, images_train, folds, float_layers)
                if calibration:
                    quantized = cross_calibrated(training_set.labels, quantized, folds, activation)
                unseen, faults = judge(
                    card, decision.scores, quantized, training_set.labels, "out_of_fold"
                )
                return taught | unseen, faults

            add_int8(*(network.backbone, fresh, images_train, images_val, labels[is_val], further))

    log.info("writing the model", path=str(training.model_path))
    card = write_artifact(
        network.backbone,
        training.model_path,
        fields,
        head=network.weights_of_head(),
        log=training_log.csv_path,
        complete=add,
    )
    if not annotations.has_split:
        write_split(run_path / SPLIT_NAME, annotations, data)
    checkpoints.delete()
    return card


def fit_folds(
    network: Network,
    data: TrainingSet,
    folds: NDArray[np.intp],
    training: TrainingConfig,
    checkpoints: Checkpoints,
    training_log: TrainingLog,
) -> tuple[Scores, list[Weights]]:
    """Fit `REPEATS` times without each fold, and leave `network` with the mean of all weights.

    All fits start from the same weights and end near one another, so their mean is as good as an
    ensemble of them (Wortsman et al. 2022, Model soups) at the cost of one.

    The mean has other scores than a single fit, and has seen every picture. So each picture is
    scored by the mean of the fits without its fold, which have seen as many pictures as those of
    the model.

    Returns these scores (n, n_labels) of every training picture, and the weights of the mean
    without each fold.
    """
    start = network.tuned.get_weights()
    fitted = []
    for number in range(training.fit_count):
        key = f"fit-{number}"
        if saved := checkpoints.load(key):
            training_log.add(from_array(saved["epochs"]))
            weights = in_order(saved)
        else:
            network.tuned.set_weights(start)
            held_out = folds == number % training.folds
            fit = Fit(network, data, number, held_out, training, checkpoints, training_log)
            _, epochs = fit.run()
            weights = network.tuned.get_weights()
            checkpoints.save(key, *weights, epochs=np.array(epochs))
        fitted.append(weights)
        log.info("fold fitted", fold=number, of=training.fit_count)
    without = [_mean(fitted[fold :: training.folds]) for fold in range(training.folds)]
    scores = np.empty_like(data.labels)
    for fold, weights in enumerate(without):
        network.tuned.set_weights(weights)
        plain = chosen_rows(data.plain, folds == fold)
        scores[folds == fold] = predicted(network.tuned, plain, training.batch_size)
    network.tuned.set_weights(_mean(fitted))
    return scores, without


def _mean(fits: Sequence[Weights]) -> Weights:
    return [np.mean(weights, axis=0) for weights in zip(*fits, strict=True)]


def quantize_folds(
    network: Network,
    without: Sequence[Weights],
    images: Pixels | Rows,
    folds: NDArray[np.intp],
    float_layers: int | None,
) -> Scores:
    """The raw scores of every training picture by the mean that never saw it, in int8.

    Those of a sigmoid are aligned with the scores in float. `network` keeps its weights.
    """
    mean = network.tuned.get_weights()
    activation = network.activation
    scores = np.empty((len(images), network.full.output_shape[1]))
    for fold, weights in enumerate(without):
        network.tuned.set_weights(weights)
        inside = folds == fold
        samples = some(images[~inside])
        content = Quantizer(network.backbone, samples).quantized(float_layers)
        head = network.weights_of_head()
        alignment = None
        if activation == "sigmoid":
            on_samples = network.full.predict(samples, verbose=0)
            alignment = align(on_samples, raw_scores(content, samples, activation, head))
        raw = raw_scores(content, images[inside], activation, head)
        scores[inside] = calibrated(raw, alignment, activation)
        log.info("folds quantized", number=fold + 1, of=len(without))
    network.tuned.set_weights(mean)
    return scores


def _group(
    csv_path: Path,
    annotations: Annotations,
    images: Pixels,
    plain: Features,
    network: Network,
    data: DataConfig,
    training: TrainingConfig,
) -> tuple[Annotations, list[tuple[int, int]]]:
    """The annotations with near-duplicates in one group, and the pairs of these.

    Features of a network that was not trained do not tell pictures apart, so there are none then.

    Raises TrainingError if a label cannot be learned any more.
    """
    if training.base_weights == "none":
        return annotations, []
    pooled = predicted(network.tuned_backbone, plain, training.batch_size)
    pairs = near_duplicates(images, pooled)
    problems = DataProblems(csv_path)
    annotations = join_groups(annotations, pairs, data, training.folds, problems)
    problems.raise_errors()
    for one, other in pairs:
        if annotations.is_val[one] != annotations.is_val[other]:
            warning = (
                f"{annotations.title(one)} looks like {annotations.title(other)}, but one is in "
                "train and one in val, which may flatter the measurement: put them into one split"
            )
            log.warning("data problem", csv_path=str(csv_path), warning=warning)
    return annotations, pairs


def _fingerprint(
    network: Network, annotations: Annotations, images: Pixels, training: TrainingConfig
) -> str:
    """A hash of everything but the code on which the result of a run depends."""
    digest = hashlib.sha256(training.model_dump_json(exclude={"runs_path"}).encode())
    digest.update(f"{keras.__version__} {network.activation}".encode())
    digest.update(_data_fingerprint(annotations, images).encode())
    for array in network.full.get_weights():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _data_fingerprint(annotations: Annotations, images: Pixels) -> str:
    """A hash of the names, labels, splits, groups and pixels of all pictures."""
    digest = hashlib.sha256(repr(annotations.names).encode())
    for array in (annotations.labels, annotations.is_val, annotations.groups):
        digest.update(np.ascontiguousarray(array).tobytes())
    for image in Rows.all_of(images):
        digest.update(image.tobytes())
    return digest.hexdigest()
