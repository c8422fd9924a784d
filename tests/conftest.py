"""What every test gets: skips with a reason where the machine lacks something, and a quiet log.

All that tests get to see of the program is searched for their secrets: see `tests.disclosure`.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from nydusd.base.errors import NydusError
from tests.disclosure import search

ROOT = Path(__file__).resolve().parent.parent
# Images of the reference's builder: large, so they lie beside the clone and not in it.
REFERENCE_IMAGES = ROOT.parent / "shared" / "fixtures"

# A shared machine has slow moments: no test has a deadline of its own. CI repeats itself exactly.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "local"))

# Shells start background jobs with SIGINT ignored, and programs under test would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root or /dev/fuse where there is none, and say which of them is missing."""
    lacking = {}
    if os.geteuid() != 0:
        lacking["root"] = "needs root: mounts, device files, owners"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        lacking["fuse"] = "needs /dev/fuse, readable and writable"
    for item in items:
        for mark, reason in lacking.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_report_header() -> str:
    state = "found" if REFERENCE_IMAGES.is_dir() else "ABSENT, the tests that read them are skipped"
    return f"reference images: {state} ({REFERENCE_IMAGES.relative_to(ROOT.parent)})"


@pytest.fixture(scope="session")
def reference_images() -> Path:
    """The folder of images that the reference's builder made; the test is skipped without it."""
    if not REFERENCE_IMAGES.is_dir():
        pytest.skip(f"no reference images at {REFERENCE_IMAGES}")
    return REFERENCE_IMAGES


class SearchedLog(logging.Handler):
    """Searches every line that is logged in this process, whatever its level."""

    def emit(self, record: logging.LogRecord) -> None:
        search.look(f"log of {record.name}", logging.Formatter().format(record))


def pytest_sessionstart() -> None:
    """Search what is logged, what errors say and what processes write, from now on."""
    logging.getLogger("nydusd").addHandler(SearchedLog())
    communicate = subprocess.Popen.communicate
    init = NydusError.__init__

    def searched_communicate(self, *args, **more):
        outputs = communicate(self, *args, **more)
        for output in outputs:
            if output:
                search.look(f"output of {self.args}", output)
        return outputs

    def searched_init(self, *args):
        init(self, *args)
        search.look(type(self).__name__, " ".join(str(each) for each in args))

    subprocess.Popen.communicate = searched_communicate  # type: ignore[method-assign]
    NydusError.__init__ = searched_init  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def no_secret_gets_out() -> Iterator[None]:
    """A secret in what the program gives away while a test runs fails the test."""
    yield
    found = search.take()
    assert not found, "secrets of the tests were disclosed"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search the files that the tests leave, and fail the session for what nobody has answered."""
    factory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    if factory._basetemp is not None:
        search.look_below(factory.getbasetemp())
    if search.found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was searched, and what was found after the tests."""
    terminalreporter.write_line(f"{search.searched} outputs searched for the secrets of the tests")
    for line in search.take():
        terminalreporter.write_line(f"DISCLOSED {line}", red=True)


@pytest.fixture(autouse=True)
def quiet_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """An unexpected log line of WARNING or above fails; a test that takes `caplog` expects some."""
    if "caplog" in request.fixturenames:
        yield
        return
    seen: list[logging.LogRecord] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = seen.append  # type: ignore[method-assign]
    logger = logging.getLogger("nydusd")
    logger.addHandler(listener)
    yield
    logger.removeHandler(listener)
    lines = [f"{record.levelname} {record.getMessage()}" for record in seen]
    assert not lines, "unexpected log lines (take `caplog` when they are expected)"
