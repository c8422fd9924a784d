"""What takes spans, as types: `base.otel` is one of it, `base.tracing` says which one is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

Attributes = dict[str, str | int | bool]


class ChildSpan(Protocol):
    """A span that ends elsewhere; no other becomes its child."""

    def end(self, error: str, attributes: Attributes) -> None:
        """End it, failed if *error* has a word for why. Any thread."""


class Tracer(Protocol):
    """Takes spans; nothing it does raises."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[object]:
        """A span while the context is open, parent of what this thread begins in it.

        An exception that leaves the context marks it as failed.
        """

    def begin_read(self, attributes: Attributes) -> Callable[[int], None]:
        """The same for a read: what is returned ends it, with 0 or -errno, on this thread."""

    def begin_child(self, name: str, attributes: Attributes) -> ChildSpan | None:
        """A child of this thread's open span; None without one."""

    def note_retry(self, error: str) -> None:
        """Note that the open span of this thread tries again; *error* is a word for why."""

    def close(self, seconds: float) -> None:
        """Give away what is left, within *seconds*."""
