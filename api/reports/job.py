"""The report of a job."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment

from api.reports import page
from api.reports.duplicates import Duplicates
from api.reports.summary import LISTED_PICTURES, Failure, Picture, Summary, quantile
from api.results.histogram import BINS
from worker.jobs.host_statistics import HostTally, heaviest_hosts
from worker.jobs.items import RejectionCode
from worker.jobs.ledger.reader import StoredResult
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import JOB_ERRORS, Job, JobStatus, utc
from worker.jobs.storage.thumbnails import MEDIA_TYPE

# Labels with a histogram and pictures, and those in the table of labels that occur together.
LISTED_LABELS = 20
PAIRED_LABELS = 10
LISTED_HOSTS = 20
MOST_METADATA_CHARS = 4000
# Results that are counted between two line breaks.
BLOCK_RESULTS = 2000
BAR_HEIGHT = 40
STATUS_WORDS = {
    JobStatus.DRAFT: "not submitted",
    JobStatus.QUEUED: "waiting",
    JobStatus.RUNNING: "running",
    JobStatus.CANCELLING: "stopping",
    JobStatus.SUCCEEDED: "done",
    JobStatus.PARTIALLY_SUCCEEDED: "done, some failed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "stopped",
}
_FAILURES = Path(__file__).parents[1] / "static" / "failures.json"


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, in units of its drawing."""

    x: int
    height: float
    above: bool


@dataclass(frozen=True)
class LabelPart:
    """What the report says of one label."""

    name: str
    threshold: float
    predicted: int
    bars: list[Bar]
    below: int
    surest: list[tuple[Picture, float]]
    least_sure: list[tuple[Picture, float]]

    @property
    def pictures(self) -> list[Picture]:
        """The pictures that are listed."""
        return [picture for picture, _ in (*self.surest, *self.least_sure)]


def job_report(
    line: Sequence[Job],
    model: ModelCard,
    options: Mapping[str, Any],
    results: Iterator[StoredResult],
    thumbnails_of: Callable[[Iterable[int]], Mapping[int, bytes]],
    read_duplicates: Callable[[], Duplicates | None],
) -> Iterator[bytes]:
    """Write the report of a job as HTML: its head at once, the rest after all results are read.

    `line` is the job, or what `ancestry` gives for a retry, with the results of all these jobs. In
    between, a line break for each BLOCK_RESULTS keeps the connection open. `thumbnails_of` gives
    the thumbnails of items by index, of those that have one. `read_duplicates` gives the
    near-duplicates, if the job can have them.
    """
    job, counts = line[-1], line[0].counts
    title = page.shortened(job.name or job.id, 120)
    subtitle = [
        f"{page.number(counts.total)} {'picture' if counts.total == 1 else 'pictures'}",
        f"model {_models(model)}",
        f"submitted {page.stamp(utc(line[0].created_ms))}",
    ]
    if retries := len(line) - 1:
        subtitle.append("retried once" if retries == 1 else f"retried {retries} times")
    head = {"title": title, "kind": "report of a job", "subtitle": " · ".join(subtitle)}
    yield page.render(_templates(), "opening.html", **head).encode()
    summary = Summary(model)
    while block := list(islice(results, BLOCK_RESULTS)):
        for stored in block:
            summary.add(stored)
        yield b"\n"
    values = _values(line, model, options, summary)
    values["duplicates"] = duplicates = read_duplicates()
    shown = [picture.index for label in values["labels"] for picture in label.pictures]
    shown += [picture.index for picture in duplicates.pictures] if duplicates else []
    values["thumbnails"] = {
        index: f"data:{MEDIA_TYPE};base64,{base64.b64encode(one).decode()}"
        for index, one in thumbnails_of(shown).items()
    }
    yield page.render(_templates(), "job.html", **values).encode()


@cache
def _templates() -> Environment:
    return page.environment()


@cache
def failure_words() -> dict[str, tuple[str, str]]:
    """What happened and what to do, by the code of a failure; the web page has the same words."""
    words: dict[str, tuple[str, str]] = json.loads(_FAILURES.read_text(encoding="utf-8"))
    return words


def _values(
    line: Sequence[Job], model: ModelCard, options: Mapping[str, Any], summary: Summary
) -> dict[str, Any]:
    """The values of the template job.html."""
    job, counts = line[-1], line[0].counts
    failed = sum(failure.count for failure in summary.failures.values())
    ranked = sorted(range(len(model.labels)), key=lambda at: -summary.labels[at].predicted)
    if len(ranked) > LISTED_LABELS:
        ranked = [at for at in ranked if summary.labels[at].predicted]
    listed = ranked[:LISTED_LABELS]
    took_s = _took_s(line)
    return {
        "job": job,
        "parents": [parent.id for parent in line[:-1]],
        "counts": counts,
        "status": STATUS_WORDS[job.status],
        "error": job.error and JOB_ERRORS[job.error],
        "model": model,
        "models": _models(model),
        "summary": summary,
        "failed": failed,
        "rest": counts.total - summary.scored - failed - counts.cancelled,
        "labels": [_label_part(summary, model, at) for at in listed],
        "unlisted_labels": len(ranked) - len(listed),
        "pairs": _pairs(summary, model, sorted(listed[:PAIRED_LABELS])),
        "failures": _failures(summary.failures),
        "hosts": heaviest_hosts(_hosts(line), LISTED_HOSTS),
        "failures_of": _failures_of,
        "stages": [
            (name, page.number(quantile(times, 0.5)), page.number(quantile(times, 0.95)))
            for name, times in zip(
                ("Fetch", "Decode", "Score"), summary.times_ms.values(), strict=True
            )
            if times
        ],
        "formats": ", ".join(
            f"{page.number(count)} {name.upper()}" for name, count in summary.formats.most_common()
        ),
        "times": _times(line, took_s),
        "took_s": took_s,
        "rate_per_s": round(sum(one.counts.finished for one in line) / took_s, 1) if took_s else 0,
        "options": _options(options),
        "metadata": page.shortened(
            json.dumps(job.metadata, ensure_ascii=False), MOST_METADATA_CHARS
        )
        if job.metadata
        else "",
        "bins": BINS,
        "bar_height": BAR_HEIGHT,
        "listed_pictures": LISTED_PICTURES,
        "footer": f"{job.id} · Piqueue {version('piqueue-server')}",
    }


def _models(model: ModelCard) -> str:
    """The model of a job, or its models."""
    return ", ".join(f"{part.name}@{part.version}" for part in model.parts or (model,))


def _label_part(summary: Summary, model: ModelCard, at: int) -> LabelPart:
    threshold, counts = model.thresholds[at], summary.histogram(at)
    # A square root, so that few are seen beside many.
    most = max(max(counts), 1) ** 0.5
    bars = [
        Bar(
            bin_,
            max(round(BAR_HEIGHT * count**0.5 / most, 1), 0.8),
            (bin_ + 0.5) / BINS >= threshold,
        )
        for bin_, count in enumerate(counts)
        if count
    ]
    predicted = summary.labels[at].predicted
    return LabelPart(
        name=model.labels[at],
        threshold=threshold,
        predicted=predicted,
        bars=bars,
        below=summary.scored - predicted,
        surest=summary.surest(at),
        least_sure=summary.least_sure(at),
    )


def _pairs(summary: Summary, model: ModelCard, listed: list[int]) -> dict[str, list[int]]:
    """Pictures by two labels, as rows of a table; empty if no picture has two of them."""
    if not any(first in listed and second in listed for first, second in summary.together):
        return {}
    return {
        model.labels[row]: [
            summary.labels[row].predicted
            if row == column
            else summary.together[min(row, column), max(row, column)]
            for column in listed
        ]
        for row in listed
    }


def _failures(
    failures: Mapping[RejectionCode, Failure],
) -> list[tuple[str, str, str, Failure]]:
    """Code, what happened, what to do, and the items, the most frequent first."""
    ranked = sorted(failures.items(), key=lambda pair: -pair[1].count)
    return [(code.value, *failure_words()[code], failure) for code, failure in ranked]


def _failures_of(host: HostTally) -> str:
    """What failed at a host, in words."""
    statuses = sorted(host.http_status.items(), key=lambda pair: -pair[1])
    parts = [f"{page.number(count)} × HTTP {status}" for status, count in statuses]
    if host.timeouts:
        parts.append(f"{page.number(host.timeouts)} × no answer in time")
    if host.other:
        parts.append(f"{page.number(host.other)} × no connection or unusable answer")
    return ", ".join(parts)


def _hosts(line: Sequence[Job]) -> list[HostTally]:
    """The sums of the hosts of all jobs."""
    found: dict[str | None, HostTally] = {}
    for job in line:
        for tally in job.hosts:
            found.setdefault(tally.name, HostTally(tally.name)).absorb(tally)
    return list(found.values())


def _took_s(line: Sequence[Job]) -> float | None:
    """The seconds that the jobs ran, so far or in all; None if none has started."""
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    spans_ms = [
        max((job.finished_ms or now_ms) - job.started_ms, 1)
        for job in line
        if job.started_ms is not None
    ]
    return sum(spans_ms) / 1000 if spans_ms else None


def _times(line: Sequence[Job], took_s: float | None) -> list[tuple[str, str]]:
    """The times of the jobs that are known, in words."""
    first, last = line[0], line[-1]
    stamps = {
        "Submitted": first.created_ms,
        "Started": first.started_ms,
        "Retried": last.created_ms if len(line) > 1 else None,
        "Finished": last.finished_ms,
        "Deleted": last.expires_ms,
    }
    rows = [(name, page.stamp(utc(ms))) for name, ms in stamps.items() if ms is not None]
    if took_s is not None and first.started_ms is not None:
        waited_s = (first.started_ms - first.created_ms) / 1000
        rows.append(("Waited to start", page.duration(waited_s)))
        rows.append(("Took", page.duration(took_s)))
    return rows


def _options(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The options that the caller gave, in words; a webhook's address may contain a secret."""
    found = []
    if "max_failures" in options:
        found.append(("Failures that end the job", f"more than {options['max_failures']}"))
    if "expires_in_s" in options:
        found.append(("Kept for", page.duration(options["expires_in_s"])))
    if options.get("use_cache"):
        found.append(("Scores of pictures seen before", "used again"))
    return found
