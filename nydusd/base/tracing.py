"""Traces of reads that miss: whom the program gives its spans (`base.spans`); off, it is `None`.

A span is one step of one read, below the step that caused it: the read, each fetch of a range, each
HTTP request of a fetch. The parent is the span that is open on the same thread. Reads that hit are
not traced: they never come by here. Who is asked for spans (OpenTelemetry) stands in `base.otel`,
which is imported when tracing is switched on and never else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nydusd.base.spans import Tracer

_tracer: Tracer | None = None  # set once, before other threads start


def tracer() -> Tracer | None:
    """Who takes spans; None: nobody does."""
    return _tracer


def switch_on(environ: Mapping[str, str]) -> None:
    """Trace from now on if *environ* (`OTEL_…`) asks for it. Before other threads start."""
    global _tracer
    if not is_asked_for(environ):
        return
    from nydusd.base.otel import open_tracer  # 0.2 s and 23 MiB, for those who trace

    _tracer = open_tracer(environ)


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether there is somewhere to send traces to, and nobody has switched them off."""
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return bool(endpoint) and not disabled and environ.get("OTEL_TRACES_EXPORTER") != "none"


def switch_off(seconds: float) -> None:
    """Trace no more; what was traced is given away within *seconds*, or lost."""
    global _tracer
    if _tracer is not None:
        closing, _tracer = _tracer, None
        closing.close(seconds)


def read_trace(mountpoint: str) -> Callable[[int, int, int], Callable[[int], None]] | None:
    """What begins the span of a read (inode, offset, size) of *mountpoint*; None when it is off."""
    taker = _tracer
    if taker is None:
        return None

    def begin(ino: int, offset: int, size: int) -> Callable[[int], None]:
        return taker.begin_read(
            {
                "nydusd.mountpoint": mountpoint,
                "nydusd.inode": ino,
                "nydusd.offset": offset,
                "nydusd.size": size,
            }
        )

    return begin
