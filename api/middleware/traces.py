"""A span for each request, by FastAPI itself, where traces are on."""

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from fastapi.telemetry import TelemetryConfig

from api.middleware.request_id import QUIET
from worker.jobs.traces import tracer_provider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

QUERY = "url.query"


def request_traces() -> TelemetryConfig:
    """Give what FastAPI is to tell: its spans of requests, where traces are on, and no more."""
    provider = tracer_provider()
    if provider is not None:
        provider.add_span_processor(_query_hider())
    return {
        "tracer_provider": provider,
        "tracing": provider is not None,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": _quiet,
    }


def _quiet(scope: MutableMapping[str, Any]) -> bool:
    return scope["path"] in QUIET


def _query_hider() -> "SpanProcessor":
    """Make what hides query strings, for those of a submission may hold secrets."""
    from opentelemetry.sdk.trace import Span, SpanProcessor

    class QueryHider(SpanProcessor):
        def on_start(self, span: Span, parent_context: object = None) -> None:  # noqa: ARG002
            if span.attributes and QUERY in span.attributes:
                span.set_attribute(QUERY, "REDACTED")

    return QueryHider()
