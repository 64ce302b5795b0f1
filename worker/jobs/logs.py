"""Logs: one event on each line, as JSON or text, for our code and the libraries."""

import logging
import sys
from contextlib import suppress

import structlog

from worker.jobs.traces import add_trace_id


def configure_logs(*, as_json: bool) -> None:
    """Send every log of this process to standard error."""
    stamp: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_trace_id,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(),
    ]
    # Not through `logging`, which would take twice the time of each line.
    structlog.configure(
        processors=[*stamp, *render],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=stamp,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # Celery logs each message twice; chunk_committed is enough.
    for name in ("celery.worker.strategy", "celery.app.trace", "kombu"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Lines:
    """Writes lines to standard error, whose loss, such as that of a full disk, ends no work."""

    def __init__(self, *_names: str) -> None:
        pass

    def _write(self, line: str) -> None:
        with suppress(OSError):
            sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = _write
