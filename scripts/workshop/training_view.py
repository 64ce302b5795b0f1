"""Shows a training run to a person: each stage, each epoch, and the figures in words."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, NoReturn, TextIO

import structlog

from model.artifact.card import Card
from model.training.config import TrainingConfig
from piqueue.commands.progress import Progress, tell

LOG_NAME = "run.log"
# Events that count, with what is counted.
_COUNTED = {
    "pictures decoded": "pictures",
    "features computed": "pictures",
    "pictures augmented": "pictures",
    "augmented copies made": "copies",
    "folds quantized": "folds",
}
_STAGES = {"head": "head", "fine_tuning": "fine-tuning"}


@contextmanager
def shown(training: TrainingConfig) -> Iterator[None]:
    """Show the events of a run on standard error.

    The file `LOG_NAME` of the run gets all of them, and what libraries log or write to standard
    error.
    """
    training.run_path.mkdir(parents=True, exist_ok=True)
    before = structlog.get_config()
    with (training.run_path / LOG_NAME).open("a", encoding="utf-8", buffering=1) as log:
        view = _View(log, training)
        stamp = structlog.processors.TimeStamper("%Y-%m-%d %H:%M:%S")
        structlog.configure(processors=[structlog.stdlib.add_log_level, stamp, view.show])
        try:
            with _library_output(log.fileno()), _library_logs(log):
                yield
        finally:
            view.end_stage()
            structlog.configure(**before)


@contextmanager
def _library_output(log: int) -> Iterator[None]:
    """Let libraries that are not of Python write to `log` instead of standard error."""
    ours = os.dup(2)
    os.dup2(log, 2)
    try:
        with (
            os.fdopen(os.dup(ours), "w", buffering=1) as terminal,
            redirect_stderr(terminal if sys.stderr is sys.__stderr__ else sys.stderr),
        ):
            yield
    finally:
        os.dup2(ours, 2)
        os.close(ours)


@contextmanager
def _library_logs(log: TextIO) -> Iterator[None]:
    """Let what libraries of Python log, and their warnings, go to `log` only."""
    root, tensorflow = logging.getLogger(), logging.getLogger("tensorflow")
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    # TensorFlow gives its logger a handler for standard error, unless the root has one by then.
    own, tensorflow.handlers = tensorflow.handlers, []
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        tensorflow.handlers = own


class _View:
    """Shows the events of a run; `show` is a processor of structlog, the last one."""

    def __init__(self, log: TextIO, training: TrainingConfig) -> None:
        self._log, self._training = log, training
        self._render = structlog.dev.ConsoleRenderer(colors=False)
        self._stage: tuple[str, Progress] | None = None

    def show(self, logger: object, level: str, event: structlog.typing.EventDict) -> NoReturn:
        """Write an event to the log, and show it if it is for people."""
        print(self._render(logger, level, dict(event)), file=self._log)
        name = event["event"]
        if unit := _COUNTED.get(name):
            self._count(name, event["number"], event["of"], unit)
        elif name == "epoch":
            self._epoch(event)
        elif name == "pictures read":
            tell(
                f"{event['train_count']} pictures to train on, {event['val_count']} to measure with"
            )
        elif name == "writing the model":
            self.end_stage()
            tell(f"writing {event['path']}, with an int8 variant if it is as good")
        elif name == "fit resumed":
            tell(f"fit {event['fold'] + 1} continues after epoch {event['epoch'] + 1}")
        elif level == "warning":
            what = event.get("warning") or f"{name}: {event.get('reason', '')}"
            tell(f"warning: {what}")
        raise structlog.DropEvent

    def end_stage(self) -> None:
        """Close the bar, if there is one."""
        if self._stage:
            self._stage[1].__exit__()
        self._stage = None

    def _count(self, title: str, done: int, total: int, unit: str) -> None:
        if self._stage is None or self._stage[0] != title:
            self.end_stage()
            self._stage = title, Progress(title, total, done, unit)
        self._stage[1].show(done)

    def _epoch(self, event: structlog.typing.EventDict) -> None:
        training, stage = self._training, event["stage"]
        fit, number = int(event["fold"]), int(event["epoch"])
        epochs = {"head": training.head_epochs, "fine_tuning": training.epochs}
        before = fit * sum(epochs.values()) + (stage == "fine_tuning") * training.head_epochs
        done, total = before + number + 1, training.fit_count * sum(epochs.values())
        line = f"fit {fit + 1} of {training.fit_count}, {_STAGES[stage]} {number + 1} of "
        line += f"{epochs[stage]}: loss {event['loss']}, accuracy {_percent(event['accuracy'])}"
        if event["held_out_loss"]:
            accuracy = _percent(event["held_out_accuracy"])
            line += f"; held out: loss {event['held_out_loss']}, accuracy {accuracy}"
        tell(f"{line}; {float(event['seconds']):.1f} s")
        self._count("epochs trained", done, total, "epochs")


def in_words(card: Card) -> list[str]:
    """Lines about the figures of a model that was trained."""
    pictures = card.training["pictures"]
    lines = []
    for split, where in (
        ("validation", f"on {pictures['validation']} pictures that were not used to train it"),
        ("out_of_fold", f"on the {pictures['train']} it was trained on, each by fits without it"),
    ):
        figures, intervals = card.metrics[split], card.metrics["intervals_95"][split]

        def between(name: str, percent: bool = False, intervals: Any = intervals) -> str:
            if intervals[name] is None:
                return "(too few pictures for an interval)"
            low, high = intervals[name]
            ends = (_percent(low), _percent(high)) if percent else (f"{low:.3f}", f"{high:.3f}")
            return f"(95 % interval: {ends[0]} to {ends[1]})"

        name, what = "binary_accuracy_at_thresholds", "of the answers are right, one for each label"
        if "accuracy" in figures:
            name, what = "accuracy", "of the pictures get the right label"
        weakest = min(card.labels, key=lambda label: figures[f"average_precision_{label}"])
        precision = figures[f"average_precision_{weakest}"]
        lines += [
            f"{where}:",
            f"  {_percent(figures[name])} {what} {between(name, percent=True)}",
            f"  average precision {figures['macro_average_precision']:.3f} "
            f"{between('macro_average_precision')}; the weakest label is {weakest}, "
            f"with {precision:.3f}",
            f"  scores differ from the share of right labels by "
            f"{figures['expected_calibration_error']:.3f} "
            f"{between('expected_calibration_error')}",
        ]
    for kind, variant in card.variants.items():
        lines.append(f"it has an {kind} variant: {variant.metrics['validation_against_float']}")
    return lines


def _percent(share: float | str) -> str:
    return f"{float(share):.1%}".replace("%", " %")
