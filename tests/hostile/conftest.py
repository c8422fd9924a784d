"""Tells at the end of a run what the hostile and random tests have put to the program."""

from __future__ import annotations

from tests.system.conftest import (  # noqa: F401 - fixtures
    mountpoint,
    now,
    nydusd,
    serve,
    shared,
)


def pytest_terminal_summary(terminalreporter) -> None:
    """Counts of the tests that recorded some."""
    lines = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", [])
        if name == "hostile" and getattr(report, "when", "") == "call"
    ]
    if lines:
        terminalreporter.section("hostile and random input")
        for line in lines:
            terminalreporter.write_line(line)
