"""Runs a training from CSV file to artifact: fits by fold, their mean, calibration and card."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import structlog
from numpy.typing import NDArray

from model.artifact.calibration import calibrated
from model.artifact.card import Activation, Card
from model.training.checkpoints import Checkpoints, in_order
from model.training.config import DataConfig, TrainingConfig, TrainingError
from model.training.data.dataset import Annotations, Labels, Pixels, read_data, stratified_folds
from model.training.evaluation import (
    Scores,
    calibration_error,
    choose_thresholds,
    evaluate,
    fit_calibration,
)
from model.training.export import round_to_float16, write_artifact
from model.training.network.build import Network, build_network
from model.training.network.features import TrainingSet, make_training_set
from model.training.network.fit import Fit
from model.training.quantize import (
    Judgement,
    Quantizer,
    add_int8,
    align,
    judge,
    raw_scores,
    some,
)
from model.training.training_log import TrainingLog, from_array

log = structlog.get_logger()

Weights = list[NDArray[Any]]

_FITTED_ON = "out-of-fold scores of the train split; the validation split was not used"


def train(csv_path: Path, data: DataConfig, training: TrainingConfig) -> Card:
    """Train on the `train` rows of `csv_path`, measure on `val`, write `training.model_path`.

    An interrupted run is resumed if it is started again with the same settings, rows and pictures.
    Raises TrainingError before any training if one of these is wrong.
    """
    if training.model_path.exists():
        raise TrainingError(
            f"model_path: {training.model_path} exists, and a version never changes: "
            "use the next version number"
        )
    annotations, images, warnings = read_data(csv_path, data, training.folds)
    for warning in warnings:
        log.warning("data problem", csv_path=str(csv_path), warning=warning)
    network = build_network(data, training)
    round_to_float16(network.full)  # so that the features are those of the exported model
    run_path = training.run_path
    fingerprint = _fingerprint(network, annotations, images, training)
    checkpoints = Checkpoints(run_path / "checkpoints", fingerprint)
    training_log = TrainingLog(run_path)

    is_val, labels = annotations.is_val, annotations.labels
    train_names = [name for name, val in zip(annotations.names, is_val, strict=True) if not val]
    log.info("pictures read", train_count=len(train_names), val_count=int(is_val.sum()))
    training_set = make_training_set(
        network, images[~is_val], labels[~is_val], training, checkpoints
    )
    folds = stratified_folds(train_names, training_set.labels, training.folds)
    raw, fitted = fit_folds(network, training_set, folds, training, checkpoints, training_log)

    activation = data.activation
    unseen = cross_calibrate(training_set.labels, raw, folds, activation)
    thresholds = choose_thresholds(training_set.labels, unseen, activation)
    out_of_fold = evaluate(training_set.labels, unseen, thresholds, data.targets, activation)
    log.info("scored out of fold", **out_of_fold)

    round_to_float16(network.full)
    calibration = fit_calibration(training_set.labels, raw, _FITTED_ON, activation)
    raw = network.full.predict(images[is_val], batch_size=training.batch_size, verbose=0)
    scores = calibrated(raw, calibration, activation)
    validation = evaluate(labels[is_val], scores, thresholds, data.targets, activation)
    validation["expected_calibration_error_uncalibrated"] = round(
        calibration_error(labels[is_val], raw), 4
    )
    log.info("scored the validation split", **validation)

    fields = {
        "labels": data.targets,
        "thresholds": thresholds,
        "activation": activation,
        "input_size": data.resize_shape,
        "calibration": calibration,
        "metrics": {"validation": validation, "out_of_fold": out_of_fold},
        "sources": data.sources,
    }

    def judge_folds(card: Card, float_layers: int) -> Judgement:
        quantized = quantize_folds(network, fitted, images[~is_val], folds, float_layers)
        after = cross_calibrate(training_set.labels, quantized, folds, activation)
        return judge(card, unseen, after, training_set.labels, "out_of_fold")

    def add(fresh: Path) -> None:
        if training.int8:
            samples, judged, truth = images[~is_val], images[is_val], labels[is_val]
            add_int8(network.full, fresh, samples, judged, truth, judge_folds)

    card = write_artifact(
        network.full, training.model_path, fields, log=training_log.csv_path, complete=add
    )
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
    """Fit once without each fold, and leave `network` with the mean of the fitted weights.

    All fits start from the same weights and end near one another, so their mean is as good as an
    ensemble of them (Wortsman et al. 2022, Model soups) at the cost of one.

    Returns the scores (n, n_labels) of every training picture by the fit that never saw it, and
    the weights of each fit.
    """
    start = network.tuned.get_weights()
    fitted = []
    scores = np.empty_like(data.labels)
    for fold in range(training.folds):
        held_out = folds == fold
        key = f"fold-{fold}"
        if saved := checkpoints.load(key):
            training_log.add(from_array(saved["epochs"]))
            scores[held_out], weights = saved["scores"], in_order(saved)
        else:
            network.tuned.set_weights(start)
            fit = Fit(network, data, fold, held_out, training, checkpoints, training_log)
            scores[held_out], epochs = fit.run()
            weights = network.tuned.get_weights()
            checkpoints.save(key, *weights, scores=scores[held_out], epochs=np.array(epochs))
        fitted.append(weights)
        log.info("fold fitted", fold=fold)
    network.tuned.set_weights([np.mean(weights, axis=0) for weights in zip(*fitted, strict=True)])
    return scores, fitted


def quantize_folds(
    network: Network,
    fitted: Sequence[Weights],
    images: Pixels,
    folds: NDArray[np.intp],
    float_layers: int,
) -> Scores:
    """The scores of every training picture by the fit that never saw it, in int8.

    Those of a sigmoid are aligned with the scores in float. `network` keeps its weights.
    """
    mean = network.tuned.get_weights()
    scores = np.empty((len(images), network.full.output_shape[1]))
    for fold, weights in enumerate(fitted):
        network.tuned.set_weights(weights)
        inside = folds == fold
        samples = some(images[~inside])
        content = Quantizer(network.full, samples).quantized(float_layers)
        alignment = None
        if network.activation == "sigmoid":
            on_samples = network.full.predict(samples, verbose=0)
            alignment = align(on_samples, raw_scores(content, samples))
        raw = raw_scores(content, images[inside])
        scores[inside] = calibrated(raw, alignment, network.activation)
        log.info("fold quantized", fold=fold)
    network.tuned.set_weights(mean)
    return scores


def cross_calibrate(
    labels: Labels, scores: Scores, folds: NDArray[np.intp], activation: Activation
) -> Scores:
    """The scores of each fold, with the calibration that was fitted on the other folds."""
    unbiased = np.empty_like(scores)
    for fold in np.unique(folds):
        inside = folds == fold
        calibration = fit_calibration(
            labels[~inside], scores[~inside], "the other folds", activation
        )
        unbiased[inside] = calibrated(scores[inside], calibration, activation)
    return unbiased


def _fingerprint(
    network: Network, annotations: Annotations, images: Pixels, training: TrainingConfig
) -> str:
    """A hash of everything but the code on which the result of a run depends."""
    digest = hashlib.sha256(training.model_dump_json(exclude={"runs_path"}).encode())
    digest.update(f"{keras.__version__} {annotations.names} {network.activation}".encode())
    arrays = [annotations.labels, annotations.is_val, images, *network.full.get_weights()]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
