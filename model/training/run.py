"""One training run from CSV to artifact: fits by fold, their mean, calibration and card."""

import datetime
import hashlib
import shutil
from pathlib import Path

import keras
import numpy as np
import structlog
from numpy.typing import NDArray

from model.artifact.calibration import calibrated
from model.artifact.card import Card
from model.images.decode import PREPROCESSING
from model.training.checkpoints import Checkpoints, in_order, numbered
from model.training.config import DataConfig, TrainingConfig, TrainingError
from model.training.data.dataset import Annotations, Labels, Pixels, read_data, stratified_folds
from model.training.evaluation import (
    Scores,
    calibration_error,
    choose_thresholds,
    evaluate,
    fit_calibration,
)
from model.training.export import write_artifact
from model.training.network.build import Network, build_network
from model.training.network.features import TrainingSet, make_training_set
from model.training.network.fit import Fit
from model.training.network.float16 import round_to_float16
from model.training.training_log import CSV_NAME, TrainingLog, from_array, to_array

log = structlog.get_logger()

_FITTED_ON = "scores of the train split out of fold; the validation split was not looked at"


def train(csv_path: Path, data: DataConfig, training: TrainingConfig) -> Card:
    """Trains on the `train` rows of `csv_path`, measures on `val`, writes `training.model_path`.

    A run that was cut off is gone on with when it is started again with the same settings, rows
    and pictures. Raises TrainingError before any training if one of these is wrong.
    """
    if training.model_path.exists():
        raise TrainingError(
            f"model_path: {training.model_path} is there already, and a version never changes: "
            "name the next one"
        )
    annotations, images, warnings = read_data(csv_path, data)
    for warning in warnings:
        log.warning("data", csv_path=str(csv_path), warning=warning)
    network = build_network(data, training)
    round_to_float16(network.full)  # the trunk's features must be those of the exported model
    name, version = training.model_path.parts[-2:]
    run_path = training.runs_path / f"{name}-{version}"
    memory = Checkpoints(run_path / "memory", _fingerprint(network, annotations, images, training))
    journal = TrainingLog(run_path)

    is_val, labels = annotations.is_val, annotations.labels
    train_names = [name for name, val in zip(annotations.names, is_val, strict=True) if not val]
    log.info("pictures read", train_count=len(train_names), val_count=int(is_val.sum()))
    training_set = make_training_set(network, images[~is_val], labels[~is_val], training, memory)
    folds = stratified_folds(train_names, training_set.labels, training.folds)
    raw = fit_folds(network, training_set, folds, training, memory, journal)

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
        "name": name,
        "version": version,
        "labels": data.targets,
        "thresholds": thresholds,
        "activation": "sigmoid",
        "input_size": data.resize_shape,
        "preprocessing": PREPROCESSING,
        "calibration": calibration,
        "metrics": {"validation": validation, "out_of_fold": out_of_fold},
        "sources": data.sources,
        "created": datetime.datetime.now(datetime.UTC).date(),
    }
    card = write_artifact(network.full, training.model_path, fields)
    shutil.copy(journal.csv_path, training.model_path / CSV_NAME)
    memory.forget()
    return card


def fit_folds(
    network: Network,
    data: TrainingSet,
    folds: NDArray[np.intp],
    training: TrainingConfig,
    memory: Checkpoints,
    journal: TrainingLog,
) -> Scores:
    """Fits once without each fold, and leaves `network` with the mean of the fitted weights.

    All fits start alike and end near one another, so that their mean is as good as asking all of
    them (Wortsman et al. 2022, Model soups) at the price of one.

    Returns the scores (n, n_labels) of every training picture by the fit that never saw it.
    """
    start = network.tuned.get_weights()
    fitted = []
    scores = np.empty_like(data.labels)
    for fold in range(training.folds):
        held_out = folds == fold
        key = f"fold-{fold}"
        kept = memory.load(key)
        if kept:
            journal.add(from_array(kept["epochs"]))
        else:
            network.tuned.set_weights(start)
            done = Fit(network, data, fold, held_out, training, memory, journal).run()
            kept = {
                "scores": done.scores,
                "epochs": to_array(done.epochs),
                **numbered(network.tuned.get_weights()),
            }
            memory.save(key, **kept)
        scores[held_out] = kept["scores"]
        fitted.append(in_order(kept))
        log.info("fold fitted", fold=fold)
    network.tuned.set_weights([np.mean(weights, axis=0) for weights in zip(*fitted, strict=True)])
    return scores


def cross_calibrate(labels: Labels, scores: Scores, folds: NDArray[np.intp]) -> Scores:
    """The scores of each fold, calibrated by what was fitted on the other folds."""
    honest = np.empty_like(scores)
    for fold in np.unique(folds):
        inside = folds == fold
        calibration = fit_calibration(labels[~inside], scores[~inside], "the other folds")
        honest[inside] = calibrated(scores[inside], calibration, "sigmoid")
    return honest


def _fingerprint(
    network: Network, annotations: Annotations, images: Pixels, training: TrainingConfig
) -> str:
    """Names all that the outcome of a run depends on, but the code."""
    digest = hashlib.sha256(training.model_dump_json(exclude={"runs_path"}).encode())
    digest.update(f"{keras.__version__} {annotations.names}".encode())
    arrays = [annotations.labels, annotations.is_val, images, *network.full.get_weights()]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
