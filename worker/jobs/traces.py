"""Traces: the spans of a job, sent if OpenTelemetry's SDK is installed and configured.

The trace context of a job is in its record, where the worker that claims a chunk reads it.
"""

import os
import time
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING, Any

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracer, SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

# Further chunks start traces of their own, linked to the request: no viewer shows a trace of a
# million pictures.
CHUNKS_IN_TRACE = 20
# How long an exiting process waits for the collector.
FLUSH_S = 2

# One for each process, like the logs.
_provider: "TracerProvider | None" = None
_tracer: Tracer = NoOpTracer()

log = structlog.get_logger()


def start_traces(service: str) -> None:
    """Start sending spans if OpenTelemetry's own variables name a collector."""
    global _provider, _tracer
    if not _configured():
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("traces_not_installed", hint='pip install "piqueue-server[traces]"')
        return
    named = {"service.name": service, "service.version": version("piqueue-server")}
    resource = Resource.create(named).merge(OTELResourceDetector().detect())
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("piqueue")


def stop_traces() -> None:
    """Flush the spans for at most FLUSH_S and stop."""
    global _provider, _tracer
    if _provider is None:
        return
    ending = Thread(target=_provider.shutdown, daemon=True)
    _provider, _tracer = None, NoOpTracer()
    ending.start()
    ending.join(FLUSH_S)


def tracer_provider() -> "TracerProvider | None":
    """The provider for the API's requests, None if traces are off."""
    return _provider


def span(name: str, **attributes: str | int) -> AbstractContextManager[dict[str, str | int]]:
    """Record a block as a span; the block may add to the yielded attributes.

    Of an exception only the type is recorded, because its text may contain a URL.
    """
    return nullcontext(attributes) if _provider is None else _span(name, attributes)


def chunk_span(
    traceparent: str | None, waited_s: float, job_id: str, chunk_index: int
) -> AbstractContextManager[dict[str, str | int]]:
    """Record the work on a chunk, and its time in the queue, in the trace of its job."""
    attributes: dict[str, str | int] = {"job_id": job_id, "chunk_index": chunk_index}
    if _provider is None and traceparent is None:
        return nullcontext(attributes)
    carrier = {} if traceparent is None else {"traceparent": traceparent}
    context: Context = TraceContextTextMapPropagator().extract(carrier, Context())
    if chunk_index < CHUNKS_IN_TRACE:
        now_ns = time.time_ns()
        queued = _tracer.start_span(
            "queue", context, attributes=attributes, start_time=now_ns - int(waited_s * 1e9)
        )
        queued.end(now_ns)
    links: list[Link] = []
    submitted = get_current_span(context).get_span_context()
    if chunk_index >= CHUNKS_IN_TRACE and submitted.trace_flags.sampled:
        links, context = [Link(submitted)], Context()
    return _span("chunk", attributes, context=context, kind=SpanKind.CONSUMER, links=links)


def traceparent() -> str | None:
    """The W3C trace context of the current span, None outside of one."""
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def add_trace_id(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add the current trace to a log line; a structlog processor."""
    if (current := traceparent()) is not None:
        _, event["trace_id"], event["span_id"], _ = current.split("-")
    return event


@contextmanager
def _span(
    name: str, attributes: dict[str, str | int], **options: Any
) -> Iterator[dict[str, str | int]]:
    with _tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False, **options
    ) as current:
        try:
            yield attributes
        except BaseException as error:
            attributes["error.type"] = type(error).__name__
            current.set_status(StatusCode.ERROR)
            raise
        finally:
            current.set_attributes(attributes)


def _configured() -> bool:
    named = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return (
        any(os.environ.get(name) for name in named)
        and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    )
