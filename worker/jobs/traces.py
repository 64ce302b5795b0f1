"""Traces: the way of a job as spans, sent where OpenTelemetry is installed and configured.

A job's trace context is kept in its record, not in the messages: a chunk is rung for by the API, by
the worker that committed another one and by the sweep, and any of those messages may be lost.
"""

import os
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

# Further chunks of a job begin traces of their own, linked to its request, for no viewer shows a
# trace of a million pictures.
CHUNKS_IN_TRACE = 20
# A process that ends waits this long for what the collector has not taken yet.
FLUSH_S = 2

# One a process, as the logs are.
_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None

log = structlog.get_logger()


def start_traces(service: str) -> None:
    """Send spans from now on, if OpenTelemetry's own variables name a collector."""
    global _provider, _tracer
    if not _configured():
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("traces_not_installed", hint='pip install "piqueue[traces]"')
        return
    named = {"service.name": service, "service.version": version("piqueue")}
    resource = Resource.create(named).merge(OTELResourceDetector().detect())
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("piqueue")


def stop_traces() -> None:
    """Send what is left, unless the collector is too slow, and send no more."""
    global _provider, _tracer
    if _provider is None:
        return
    ending = Thread(target=_provider.shutdown, daemon=True)
    _provider = _tracer = None
    ending.start()
    ending.join(FLUSH_S)


def tracer_provider() -> "TracerProvider | None":
    """Give what the API's requests are traced with, None where traces are off."""
    return _provider


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[dict[str, str | int]]:
    """Show a block as a span; what it adds to the attributes it is given is shown too.

    Of an exception only the type is, for its text may hold a URL.
    """
    with _span(_tracer, name, attributes):
        yield attributes


@contextmanager
def chunk_span(
    traceparent: str | None, waited_s: float | None, job_id: str, chunk_index: int
) -> Iterator[dict[str, str | int]]:
    """Show the work at a chunk, and how long it was queued, within the trace of its job."""
    attributes: dict[str, str | int] = {"job_id": job_id, "chunk_index": chunk_index}
    if _tracer is None:
        yield attributes
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {} if traceparent is None else {"traceparent": traceparent}
    context: Context = TraceContextTextMapPropagator().extract(carrier, Context())
    if waited_s is not None and chunk_index < CHUNKS_IN_TRACE:
        now_ns = time.time_ns()
        queued = _tracer.start_span(
            "queue", context, attributes=attributes, start_time=now_ns - int(waited_s * 1e9)
        )
        queued.end(now_ns)
    links: list[Link] = []
    submitted = get_current_span(context).get_span_context()
    if chunk_index >= CHUNKS_IN_TRACE and submitted.trace_flags.sampled:
        links, context = [Link(submitted)], Context()
    with _span(_tracer, "chunk", attributes, context=context, kind=SpanKind.CONSUMER, links=links):
        yield attributes


def traceparent() -> str | None:
    """Give the W3C trace context of the current span, None outside of one."""
    if _tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def add_trace_id(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Name the current trace in a log line: a processor of structlog."""
    if (current := traceparent()) is not None:
        _, event["trace_id"], event["span_id"], _ = current.split("-")
    return event


@contextmanager
def _span(
    tracer: "Tracer | None", name: str, attributes: dict[str, str | int], **options: Any
) -> Iterator[None]:
    if tracer is None:
        yield
        return
    from opentelemetry.trace import StatusCode

    with tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False, **options
    ) as current:
        try:
            yield
        except BaseException as error:
            attributes["error.type"] = type(error).__name__
            current.set_status(StatusCode.ERROR)
            raise
        finally:
            current.set_attributes(attributes)


def _configured() -> bool:
    """Whether the variables that OpenTelemetry's SDK reads itself name a collector."""
    named = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return (
        any(os.environ.get(name) for name in named)
        and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    )
