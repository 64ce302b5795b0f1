"""A span for each request, made by FastAPI, if traces are on."""

from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig

from api.middleware.request_id import QUIET
from worker.jobs.traces import tracer_provider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

QUERY = "url.query"


def request_traces() -> TelemetryConfig:
    """Configure FastAPI's telemetry: spans of requests if traces are on, and nothing else."""
    provider = tracer_provider()
    if provider is not None:
        provider.add_span_processor(_query_redactor())
    return {
        "tracer_provider": provider,
        "tracing": provider is not None,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["path"] in QUIET,
    }


def _query_redactor() -> "SpanProcessor":
    """Make a processor that redacts query strings: those of submissions may contain secrets."""
    from opentelemetry.sdk.trace import Span, SpanProcessor

    class QueryRedactor(SpanProcessor):
        def on_start(self, span: Span, parent_context: object = None) -> None:  # noqa: ARG002
            if span.attributes and QUERY in span.attributes:
                span.set_attribute(QUERY, "REDACTED")

    return QueryRedactor()
