"""Spans for OpenTelemetry, sent as OTLP over HTTP: the body behind `base.tracing`.

Where they go, how many are kept and what they are called is told by the standard `OTEL_…`
variables, which the SDK reads itself. Sending happens on the SDK's own thread; spans that it cannot
keep up with are dropped. Needs the extra `otel`; without it a line in the log says so.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from nydusd.base.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

    from nydusd.base.spans import Attributes

logger = logging.getLogger("nydusd")

PROTOCOL: Final = "http/protobuf"
LOG_SECONDS: Final = 60.0  # between two lines about a collector that takes nothing


def open_tracer(environ: Mapping[str, str]) -> OtelTracer | None:
    """A tracer as *environ* describes it; None, and a warning, when there cannot be one."""
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL
    )
    if protocol != PROTOCOL:
        logger.warning("traces are sent as %s only, not as %s: nothing is traced",
                       PROTOCOL, ascii(protocol))  # fmt: skip
        return None
    try:
        return OtelTracer(environ)
    except ImportError as exc:
        logger.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, but %s is not installed: nothing is "
                       "traced (pip install 'nydusd[otel]')", exc.name)  # fmt: skip
    except ValueError as exc:  # a variable that is no number
        logger.warning("an OTEL variable cannot be used: %s: nothing is traced", exc)
    return None


class OtelTracer:
    """See `base.spans.Tracer`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        from opentelemetry import context, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        about = {"service.version": VERSION}
        named = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in named:
            about["service.name"] = "nydusd"
        forward_log()
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("nydusd", VERSION)
        self._trace: ModuleType = trace
        self._context: ModuleType = context
        self._retries = threading.local()  # of the open span of each thread

    @contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator[object]:
        """See `Tracer`."""
        span = self._tracer.start_span(name, attributes=attributes)
        token = self._context.attach(self._trace.set_span_in_context(span))
        self._retries.count = 0
        try:
            yield span
        except BaseException as exc:
            self._fail(span, type(exc).__name__)
            raise
        finally:
            span.set_attribute("nydusd.retries", self._retries.count)
            self._context.detach(token)
            span.end()

    def begin_read(self, attributes: Attributes) -> Callable[[int], None]:
        """See `Tracer`."""
        span = self._tracer.start_span("read", attributes=attributes)
        token = self._context.attach(self._trace.set_span_in_context(span))

        def end(code: int) -> None:
            if code < 0:
                self._fail(span, os.strerror(-code))
            self._context.detach(token)
            span.end()

        return end

    def begin_child(self, name: str, attributes: Attributes) -> OtelChild | None:
        """See `Tracer`."""
        if not self._trace.get_current_span().get_span_context().is_valid:
            return None
        if retries := getattr(self._retries, "count", 0):
            attributes["http.request.resend_count"] = retries
        kind = self._trace.SpanKind.CLIENT
        return OtelChild(self, self._tracer.start_span(name, kind=kind, attributes=attributes))

    def note_retry(self, error: str) -> None:
        """See `Tracer`."""
        self._retries.count = getattr(self._retries, "count", 0) + 1
        self._trace.get_current_span().add_event("retry", {"error.type": error})

    def _fail(self, span: Any, error: str) -> None:  # noqa: ANN401 - a span of the SDK
        # A word for the error: its text may quote what came from elsewhere.
        span.set_attribute("error.type", error)
        span.set_status(self._trace.StatusCode.ERROR)

    def close(self, seconds: float) -> None:
        """See `Tracer`."""
        # The SDK waits for a collector that does not answer as long as it likes.
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        thread.join(seconds)


class OtelChild:
    """See `base.spans.ChildSpan`."""

    def __init__(self, tracer: OtelTracer, span: Any) -> None:  # noqa: ANN401
        self._tracer = tracer
        self._span = span

    def end(self, error: str, attributes: Attributes) -> None:
        """See `ChildSpan`."""
        self._span.set_attributes(attributes)
        if error:
            self._tracer._fail(self._span, error)
        self._span.end()


class Forward(logging.Handler):
    """What the SDK complains of, in our log, once in a while."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logged = -LOG_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        """Log *record* unless another one was logged of late."""
        now = time.monotonic()
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            logger.warning("traces: %s", record.getMessage().replace("\n", " ")[:300])


def forward_log() -> None:
    """Have the SDK's log lines in ours."""
    theirs = logging.getLogger("opentelemetry")
    theirs.propagate = False
    if not any(isinstance(each, Forward) for each in theirs.handlers):
        theirs.addHandler(Forward())
