"""Teaches a model new labels, from pictures of a job whose features are kept."""

import argparse
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from model.artifact.card import Card, describe_file, load_card, write_card
from model.artifact.head import HEAD_NAME
from model.artifact.score_counts import count_scores
from model.predictor import verify_artifact
from model.training.config import DataConfig, TrainingError
from model.training.data.dataset import Annotations, DataProblems, read_annotations
from model.training.teach import (
    Taught,
    doubtful_labels,
    join_similar,
    label_next,
    problems,
    teach,
)
from piqueue import Client, Job
from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed, connect, connection_options, run
from scripts.commands.models import model_name, require_registry, writing
from scripts.commands.parser import command_parser
from scripts.workshop.label_table import LABEL
from scripts.workshop.training_table import describe
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.configured import open_catalog
from worker.jobs.record import ModelRef
from worker.jobs.settings import load_settings

# Unlabelled pictures from which the next ones are chosen, at most.
MOST_OTHERS = 20_000
# Rows of a table of features in memory.
_READ_ROWS = 2000
_SHOWN = 10

EXAMPLES = """\
The job must keep features: piqueue submit photos.csv --keep-features. LABELS is a table as for
piqueue train: a column `name`, and a column of 0 and 1 for each label, or a column `label`. A name
is the id of a picture, its column `name`, its file name or URL, or the last part of these.

examples:
  piqueue teach harbours labels.csv --from job_01J…
  piqueue models promote harbours 2"""

Features = NDArray[np.float32]


@dataclass(frozen=True)
class _Kept:
    """The features (n_features,) of a picture, and the variant of the backbone that gave them."""

    features: Features
    variant: str


@dataclass(frozen=True)
class _Pictures:
    """Names and features (n, n_features) of pictures, and the variants that gave these."""

    names: tuple[str, ...]
    features: Features
    variants: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `piqueue teach`; gives the exit code."""
    parser = command_parser("teach", __doc__, EXAMPLES, connection_options())
    about = "name of the model; a new version if it exists"
    parser.add_argument("name", type=model_name, help=about)
    parser.add_argument("labels", type=Path, metavar="LABELS", help="table of labelled pictures")
    about = "job that scored the pictures and keeps their features"
    parser.add_argument("--from", dest="job", required=True, metavar="JOB", help=about)
    about = "how many pictures to name that are best labelled next (default: %(default)s)"
    parser.add_argument("--next", type=_count, default=20, metavar="COUNT", help=about)
    options = parser.parse_args(arguments)
    return run(parser.prog, lambda: _teach(options))


def _count(text: str) -> int:
    """A number of pictures; raises ArgumentTypeError if it is none."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 0")
    return int(text)


def _teach(options: argparse.Namespace) -> int:
    """Teach, add the model to the registry, and print what it is worth.

    Raises:
        CommandFailed: the labels or the job do not allow it.
    """
    settings = load_settings()
    require_registry(settings)
    catalog = open_catalog(settings)
    try:
        config, annotations, warnings = _read_labels(options.labels)
    except TrainingError as error:
        raise CommandFailed(str(error)) from error
    for warning in warnings:
        tell(f"{options.labels}: {warning}")
    with connect(options) as client:
        job = client.job(options.job)
        if not job.done:
            raise CommandFailed(
                f"{job.id} is {job.status}: wait for it with piqueue submit --resume {job.id}"
            )
        base, column = _base(job, catalog)
        labelled, others = _read_features(client, options.job, column, annotations.names)
    if not labelled.names and not others.names:
        raise CommandFailed(
            f"{job.id} has features of none of its pictures: none has scores, or its store was "
            "full, which the log of the workers says: make room and submit the pictures again"
        )
    annotations = _found(annotations, labelled, options)
    annotations = join_similar(annotations, labelled.features)
    if found := problems(annotations, config.targets):
        raise CommandFailed("\n".join([f"{options.labels}:", *found]))
    taught = teach(labelled.features, annotations, config.targets, config.activation)
    with tempfile.TemporaryDirectory(prefix="piqueue-teach-") as scratch:
        folder = _write(
            Path(scratch), options, catalog, base, config, labelled, annotations, taught
        )
        verify_artifact(folder)
        with writing(settings):
            added = catalog.add(folder)
    _print_figures(taught, config.targets, len(annotations.names))
    _print_doubtful(taught, annotations, config.targets)
    if options.next and len(others.names):
        scores = taught.scores_of(others.features)
        chosen = label_next(scores, taught.thresholds, others.features, options.next)
        print("\nlabel these next:")
        print("\n".join(others.names[one] for one in chosen))
    new = f"{added.name}@{added.version}"
    print(f"\nadded {new}, on the backbone of {base.text}")
    print(f"to score {job.id} with it: piqueue rescore {job.id} --model {new}")
    if added != catalog.resolve(added.name):
        print(f"to use it for new jobs: piqueue models promote {added.name} {added.version}")
    return 0


def _read_labels(path: Path) -> tuple[DataConfig, Annotations, list[str]]:
    """The labels of a table and of its rows; raises TrainingError."""
    described = describe(path, {"images_base_path": path.parent})
    if described.get("label_col") and len(described["targets"]) < 2:
        only = f"only {described['targets'][0]!r}" if described["targets"] else "no labels"
        raise TrainingError(
            f"{path} has {only} in its column {LABEL}: at least two labels are needed: write the "
            "others too, such as none"
        )
    config = DataConfig(images_base_path=path.parent, **described)
    found = DataProblems(path)
    annotations = read_annotations(path, config, found)
    found.raise_errors()
    return config, annotations, found.warnings


def _base(job: Job, catalog: ModelCatalog) -> tuple[ModelRef, str]:
    """The first model of a job that has a backbone, and the column of its features."""
    for model in job.models or [job.model]:
        ref = ModelRef(model.name, model.version, model.sha256)
        if catalog.card(ref).backbone is not None:
            return ref, f"{model.name}/embedding" if job.models else "embedding"
    raise CommandFailed(
        f"{job.id} was scored by {job.model.name}, which gives no features: submit the pictures "
        "with a model that has a backbone, such as scenes, and --keep-features"
    )


def _read_features(
    client: Client, job_id: str, column: str, wanted: Sequence[str]
) -> tuple[_Pictures, _Pictures]:
    """The features of the wanted pictures, and of up to MOST_OTHERS others of the job."""
    names = {name: name for name in wanted}
    # Names that `piqueue review` made of the hash.
    names |= {PurePosixPath(name).stem: name for name in wanted if re.match("[0-9a-f]{32}", name)}
    labelled: dict[str, _Kept] = {}
    others: list[tuple[str, _Kept]] = []
    random = np.random.default_rng(0)
    seen_count = 0
    for row, kept in _rows(client, job_id, column):
        known_as = _names(row)
        called = [name for name in known_as if name in names]
        if called:
            labelled[names[called[0]]] = kept
            continue
        # A uniform sample of the others.
        seen_count += 1
        if len(others) < MOST_OTHERS:
            others.append((known_as[0], kept))
        elif (place := random.integers(seen_count)) < MOST_OTHERS:
            others[place] = (known_as[0], kept)
    return _pictures(labelled.items()), _pictures(others)


def _pictures(found: Iterable[tuple[str, _Kept]]) -> _Pictures:
    pairs = list(found)
    names = tuple(name for name, _ in pairs)
    features = np.array([kept.features for _, kept in pairs], np.float32)
    return _Pictures(names, features, tuple(kept.variant for _, kept in pairs))


def _rows(client: Client, job_id: str, column: str) -> Iterator[tuple[dict[str, Any], _Kept]]:
    """The rows of a job's results that have features, with these."""
    with tempfile.TemporaryFile() as file:
        client.download(job_id, file, "parquet", embeddings=True, status="succeeded")
        table = pyarrow.parquet.ParquetFile(file)
        given_by = f"{column}_variant"
        # A name may be a number.
        kinds = (pyarrow.string(), pyarrow.int64())
        names = [one.name for one in table.schema_arrow if one.type in kinds]
        texts = [name for name in names if not name.endswith("embedding_variant")]
        for batch in table.iter_batches(_READ_ROWS, columns=[*texts, column, given_by]):
            embeddings = batch.column(column)
            values = embeddings.flatten().to_numpy()
            kept = np.flatnonzero(embeddings.is_valid().to_numpy(zero_copy_only=False))
            rows = batch.select(texts).to_pylist()
            variants = batch.column(given_by).to_pylist()
            if not len(kept):
                continue
            for index, features in zip(kept, values.reshape(len(kept), -1), strict=True):
                yield rows[index], _Kept(features.copy(), variants[index])


def _names(row: Mapping[str, Any]) -> list[str]:
    """What a table of labels may call the picture of a row of results, the likeliest name first."""
    given = [row.get(name) for name in ("name", "id", "filename", "source", "url")]
    names = [str(name) for name in (*given, *row.values()) if name is not None and name != ""]
    digest = row["sha256"]
    return [*names, *(name.rstrip("/").rpartition("/")[2] for name in names), digest[:32]]


def _found(annotations: Annotations, labelled: _Pictures, options: Any) -> Annotations:
    """The annotations of the labelled pictures, in their order."""
    if not labelled.names:
        raise CommandFailed(
            f"{options.labels}: {annotations.names[0]} and all other names are no pictures of "
            f"{options.job} with features: use the ids, file names or URLs of that job"
        )
    at = {name: index for index, name in enumerate(annotations.names)}
    if missing := sorted(set(annotations.names) - set(labelled.names)):
        shown = [annotations.title(at[name]) for name in missing[:_SHOWN]]
        if left := len(missing) - len(shown):
            shown.append(f"and {left} more")
        tell(
            f"{options.labels}: not used, because {options.job} has no features of a picture of "
            f"that name: {', '.join(shown)}"
        )
    return annotations.of([at[name] for name in labelled.names])


def _write(
    scratch: Path,
    options: argparse.Namespace,
    catalog: ModelCatalog,
    base: ModelRef,
    config: DataConfig,
    labelled: _Pictures,
    annotations: Annotations,
    taught: Taught,
) -> Path:
    """Write the artifact: the files of the base's backbone, and the new head and card.

    The variants of the backbone have the calibration of the head: they are only written if a head
    that is taught on the features of one is as good on those of the other.
    """
    versions = [int(card.version) for card in catalog.all() if card.name == options.name]
    folder: Path = scratch / options.name / str(max(versions, default=0) + 1)
    folder.mkdir(parents=True)
    source = catalog.fetch(base)
    card = load_card(source)
    files: dict[str, Any] = {}
    for engine, file in card.files.items():
        if engine != "head" and (source / file.path).exists():
            shutil.copyfile(source / file.path, folder / file.path)
            files[engine] = file
    variants: dict[str, Any] = {}
    for name, variant in card.variants.items():
        if (source / variant.path).exists():
            shutil.copyfile(source / variant.path, folder / variant.path)
            variants[name] = {
                **describe_file(folder / variant.path).model_dump(),
                "calibration": taught.calibration,
            }
    taught.head.save(folder / HEAD_NAME)
    files["head"] = describe_file(folder / HEAD_NAME)
    made = {
        "name": options.name,
        "version": folder.name,
        "labels": config.targets,
        "thresholds": taught.thresholds,
        "activation": taught.activation,
        "calibration": taught.calibration,
        "files": files,
        "variants": variants,
        "metrics": taught.metrics,
        "score_counts": count_scores(taught.scores, config.targets),
        "training": {
            "backbone_of": base.text,
            "strength": taught.strength,
            "pictures": {"train": len(annotations.names)},
            "features": dict(Counter(labelled.variants)),
            "groups": len(np.unique(annotations.groups)),
        },
        "created": datetime.now(UTC).date(),
        "notes": f"taught by piqueue teach on features of {base.text}",
    }
    kept = {"input_size", "preprocessing", "scaling", "memory_bytes", "sources"}
    write_card(Card(**card.model_dump(include=kept) | made), folder)
    return folder


def _print_figures(taught: Taught, targets: Sequence[str], count: int) -> None:
    figures = taught.metrics["out_of_fold"]
    intervals = taught.metrics["intervals_95"]["out_of_fold"]
    print(f"taught on {count} pictures; measured on each by a head that did not see it:")
    for name in ("macro_average_precision", "binary_accuracy_at_thresholds"):
        between = intervals[name]
        sure = "" if between is None else f"  (95 %: {between[0]:.3f} to {between[1]:.3f})"
        print(f"  {name.replace('_', ' '):32} {figures[name]:.3f}{sure}")
    for target, threshold in zip(targets, taught.thresholds, strict=True):
        average = figures[f"average_precision_{target}"]
        print(f"  {target:32} average precision {average:.3f}, threshold {threshold:g}")


def _print_doubtful(taught: Taught, annotations: Annotations, targets: Sequence[str]) -> None:
    found = doubtful_labels(annotations.labels, taught.scores)
    if found:
        print(f"\nlabels that may be wrong: {len(found)}")
    for row, column in found[:_SHOWN]:
        has = "has" if annotations.labels[row, column] > 0.5 else "lacks"
        score = taught.scores[row, column]
        print(f"  {annotations.title(row)} {has} {targets[column]}, with a score of {score:.2f}")
