"""A collector of OpenTelemetry traces: OTLP over HTTP on loopback, decoded by its own schema."""

from __future__ import annotations

import gzip
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.disclosure import search

WAIT_S = 60


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it came."""

    name: str
    id: bytes
    parent: bytes
    trace: bytes
    attributes: dict[str, Any]
    events: list[str]
    failed: bool
    start: int
    end: int
    resource: dict[str, Any]


def values(pairs):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in pairs}


class Collector:
    """Listens on a port of loopback; a context manager."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []
        self.raw: list[bytes] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Collector:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(dict(self.headers), body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def take(self, headers, body):
        found = []
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = values(resource.resource.attributes)
            found += [
                Span(
                    each.name, each.span_id, each.parent_span_id, each.trace_id,
                    values(each.attributes), [event.name for event in each.events],
                    each.status.code == 2, each.start_time_unix_nano, each.end_time_unix_nano,
                    about,
                )
                for scope in resource.scope_spans
                for each in scope.spans
            ]  # fmt: skip
        with self._changed:
            self.headers.append(headers)
            self.raw.append(body)
        search.look("spans", body)
        with self._changed:
            self.spans += found
            self._changed.notify_all()

    def wait_for(self, condition) -> list[Span]:
        """All spans, once *condition* holds of them."""
        deadline = time.monotonic() + WAIT_S
        with self._changed:
            while not condition(self.spans):
                assert self._changed.wait(deadline - time.monotonic()), self.spans
            return list(self.spans)
