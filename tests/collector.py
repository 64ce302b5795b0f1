"""An OpenTelemetry collector for tests: it receives OTLP over HTTP and records the spans."""

from dataclasses import dataclass
from typing import Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tests.worker.fetching.site import Site


@dataclass(frozen=True)
class Span:
    """One span; `parent_id` and `links` are ids of spans, times nanoseconds since 1970."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str | int]
    links: list[str]
    start_ns: int
    end_ns: int
    text: str


class Collector:
    """Listens until its block ends; `env` makes a process send it spans immediately."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._site = Site({"/v1/traces": self._receive})

    @property
    def env(self) -> dict[str, str]:
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._site.url("/"),
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    def named(self, name: str) -> list[Span]:
        """Give the spans of a name in the order in which they came."""
        return [span for span in list(self.spans) if span.name == name]

    def __enter__(self) -> Self:
        self._site.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._site.__exit__()

    async def _receive(self, request: web.BaseRequest) -> web.StreamResponse:
        export = ExportTraceServiceRequest.FromString(await request.read())
        for resource in export.resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [
                    Span(
                        service=str(service),
                        name=span.name,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        attributes=_values(span.attributes),
                        links=[link.span_id.hex() for link in span.links],
                        start_ns=span.start_time_unix_nano,
                        end_ns=span.end_time_unix_nano,
                        text=str(span),
                    )
                    for span in scope.spans
                ]
        return web.Response(content_type="application/x-protobuf")


def _values(attributes: "list[KeyValue]") -> dict[str, str | int]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
        for pair in attributes
    }
