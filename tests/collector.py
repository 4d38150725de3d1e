"""A collector of traces: takes spans over OTLP (HTTP) and keeps them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

_KINDS = {
    trace_pb2.Span.SPAN_KIND_SERVER: "server",
    trace_pb2.Span.SPAN_KIND_CLIENT: "client",
    trace_pb2.Span.SPAN_KIND_CONSUMER: "consumer",
    trace_pb2.Span.SPAN_KIND_INTERNAL: "internal",
}


@dataclass(frozen=True)
class Span:
    """A span that a collector received.

    Attributes:
        service: The name of the service that sent it.
        pid: Of the process.
        kind: server, client, consumer or internal.
        parent_id: Empty if it has none.
        links: (trace id, span id) of each.
        failed: Whether its status says so.
    """

    service: str
    pid: int
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    tracestate: str
    start: int
    end: int
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    failed: bool

    @property
    def short(self) -> str:
        """How it stands in a drawn tree: `server PostService/GetPost`."""
        return f"{self.kind} {self.name.rpartition('.')[2]}"


@dataclass
class Collector:
    """What came in.

    Attributes:
        url: For OTEL_EXPORTER_OTLP_ENDPOINT.
        headers: Of the last request.
    """

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace that are here by now."""
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    def receive(self, body: bytes) -> None:
        """Take a request."""
        for resource in trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans:
            told = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_span(span, told) for span in scope.spans]


def tree(spans: list[Span], parent_id: str = "", depth: int = 0) -> list[str]:
    """Spans of one trace below a parent, one a line, those of one parent by their start, indented by depth."""
    lines = []
    for span in sorted(spans, key=lambda span: (span.start, span.name)):
        if span.parent_id == parent_id:
            lines.append("  " * depth + span.short)
            lines += tree(spans, span.span_id, depth + 1)
    return lines


@contextmanager
def collecting(status: int = 200) -> Iterator[Collector]:
    """A collector on a free port, which answers with a status."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces", self.path
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.headers = {name.lower(): value for name, value in self.headers.items()}
            if status == 200:
                collector.receive(body)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing is told."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    serving.start()
    collector.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _span(span: trace_pb2.Span, resource: dict[str, Any]) -> Span:
    return Span(
        service=resource["service.name"],
        pid=resource["process.pid"],
        name=span.name,
        kind=_KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        tracestate=span.trace_state,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
    )
