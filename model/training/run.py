"""One training run from CSV to artifact: fits by fold, their mean, thresholds and card."""

import datetime
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from model.card import Card
from model.images import PREPROCESSING
from model.training.config import DataConfig, TrainingConfig
from model.training.dataset import load_images, read_annotations, stratified_folds
from model.training.evaluation import Scores, choose_thresholds, evaluate
from model.training.export import write_artifact
from model.training.fit import TrainingSet, fit, make_training_set
from model.training.half import round_to_half
from model.training.network import Network, build_network

log = structlog.get_logger()


def train(csv_path: Path, data: DataConfig, training: TrainingConfig) -> Card:
    """Trains on the `train` rows of `csv_path`, measures on `val`, writes `training.model_path`.

    Raises TrainingError before any training if a setting, a row or a picture is wrong.
    """
    annotations = read_annotations(csv_path, data)
    network = build_network(data, training)
    round_to_half(network.full)  # the trunk's features must be those of the exported model
    images = load_images(annotations.names, data)
    is_val, labels = annotations.is_val, annotations.labels
    train_names = [name for name, val in zip(annotations.names, is_val, strict=True) if not val]
    log.info("pictures read", train_count=len(train_names), val_count=int(is_val.sum()))

    training_set = make_training_set(network, images[~is_val], labels[~is_val], training)
    folds = stratified_folds(train_names, training_set.labels, training.folds)
    out_of_fold = fit_folds(network, training_set, folds, training)
    thresholds = choose_thresholds(training_set.labels, out_of_fold)
    folds_report = evaluate(training_set.labels, out_of_fold, thresholds, data.targets)
    log.info("scored out of fold", **folds_report)

    round_to_half(network.full)
    scores = network.full.predict(images[is_val], batch_size=training.batch_size, verbose=0)
    val_report = evaluate(labels[is_val], scores, thresholds, data.targets)
    log.info("scored the validation split", **val_report)

    card = {
        "name": training.model_path.parent.name,
        "version": training.model_path.name,
        "labels": data.targets,
        "thresholds": thresholds,
        "activation": "sigmoid",
        "input_size": data.resize_shape,
        "preprocessing": PREPROCESSING,
        "metrics": {"validation": val_report, "out_of_fold": folds_report},
        "sources": data.sources,
        "created": datetime.datetime.now(datetime.UTC).date(),
    }
    return write_artifact(network.full, training.model_path, card)


def fit_folds(
    network: Network, data: TrainingSet, folds: NDArray[np.intp], training: TrainingConfig
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
        network.tuned.set_weights(start)
        scores[held_out] = fit(network, data.subset(~held_out), data.subset(held_out), training)
        fitted.append(network.tuned.get_weights())
        log.info("fold fitted", fold=fold)
    network.tuned.set_weights([np.mean(weights, axis=0) for weights in zip(*fitted, strict=True)])
    return scores
