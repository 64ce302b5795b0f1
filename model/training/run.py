"""Runs a training from CSV file to artifact: fits by fold, their mean, calibration and card."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import structlog
from numpy.typing import NDArray

from model.artifact.calibration import calibrated
from model.artifact.card import Card
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
from model.training.training_log import TrainingLog, from_array

log = structlog.get_logger()

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
    run_path = training.runs_path / "-".join(training.model_path.parts[-2:])
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
    raw = fit_folds(network, training_set, folds, training, checkpoints, training_log)

    scores = cross_calibrate(training_set.labels, raw, folds)
    thresholds = choose_thresholds(training_set.labels, scores)
    out_of_fold = evaluate(training_set.labels, scores, thresholds, data.targets)
    log.info("scored out of fold", **out_of_fold)

    round_to_float16(network.full)
    calibration = fit_calibration(training_set.labels, raw, _FITTED_ON)
    raw = network.full.predict(images[is_val], batch_size=training.batch_size, verbose=0)
    scores = calibrated(raw, calibration, "sigmoid")
    validation = evaluate(labels[is_val], scores, thresholds, data.targets)
    validation["expected_calibration_error_uncalibrated"] = round(
        calibration_error(labels[is_val], raw), 4
    )
    log.info("scored the validation split", **validation)

    fields = {
        "labels": data.targets,
        "thresholds": thresholds,
        "activation": "sigmoid",
        "input_size": data.resize_shape,
        "calibration": calibration,
        "metrics": {"validation": validation, "out_of_fold": out_of_fold},
        "sources": data.sources,
    }
    card = write_artifact(network.full, training.model_path, fields, log=training_log.csv_path)
    checkpoints.delete()
    return card


def fit_folds(
    network: Network,
    data: TrainingSet,
    folds: NDArray[np.intp],
    training: TrainingConfig,
    checkpoints: Checkpoints,
    training_log: TrainingLog,
) -> Scores:
    """Fit once without each fold, and leave `network` with the mean of the fitted weights.

    All fits start from the same weights and end near one another, so their mean is as good as an
    ensemble of them (Wortsman et al. 2022, Model soups) at the cost of one.

    Returns the scores (n, n_labels) of every training picture by the fit that never saw it.
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
    return scores


def cross_calibrate(labels: Labels, scores: Scores, folds: NDArray[np.intp]) -> Scores:
    """The scores of each fold, with the calibration that was fitted on the other folds."""
    unbiased = np.empty_like(scores)
    for fold in np.unique(folds):
        inside = folds == fold
        calibration = fit_calibration(labels[~inside], scores[~inside], "the other folds")
        unbiased[inside] = calibrated(scores[inside], calibration, "sigmoid")
    return unbiased


def _fingerprint(
    network: Network, annotations: Annotations, images: Pixels, training: TrainingConfig
) -> str:
    """A hash of everything but the code on which the result of a run depends."""
    digest = hashlib.sha256(training.model_dump_json(exclude={"runs_path"}).encode())
    digest.update(f"{keras.__version__} {annotations.names}".encode())
    arrays = [annotations.labels, annotations.is_val, images, *network.full.get_weights()]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
