"""The command `nydusctl`: asks a daemon over its control socket, and changes it.

Commands, options and output are the reference's, so that scripts go on working; `top`, `prefetch`
and `cache` are ours.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from nydusd.base.record import NamedTuple
from nydusd.cli.command import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    complain,
    print_line,
    run_command,
    show_version,
)

TYPE_CHECKING = False  # as in nydusd.cli.nydusd
if TYPE_CHECKING:
    from nydusd.cli.control_client import ControlClient
    from nydusd.cli.parser import Arguments

NAME: Final = "nydusctl"
CLEAR: Final = "\x1b[H\x1b[2J"
PROGRESS_SECONDS: Final = 0.5


class Call(NamedTuple):
    """One command line that makes sense, and the daemon it is for."""

    client: "ControlClient"
    arguments: "Arguments"
    raw: bool

    def show(self, value: Any, text: Callable[[Any], str]) -> None:  # noqa: ANN401 - JSON
        """Print *value* as JSON if that is wanted, else what *text* makes of it."""
        from nydusd.cli.control_text import raw_text

        print_line(raw_text(value) if self.raw else text(value))

    @property
    def interval(self) -> int:
        """Seconds between two looks; 0 = one look."""
        return int(self.arguments.text("interval") or 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run nydusctl with *argv* (the process's own by default); the exit code."""
    return run_command(argv, NAME, _run)


def _run(words: list[str]) -> int:
    from nydusd.cli.control_options import parse
    from nydusd.cli.parser import UsageError

    try:
        line = parse(words)
    except UsageError as exc:
        complain(exc.text)
        return EXIT_USAGE
    if line.show == "version":
        return show_version(NAME)
    if line.show:
        print_line(line.show)
        return EXIT_OK
    from nydusd.cli.control_client import ControlClient, RequestFailed
    from nydusd.cli.control_text import debug_form

    try:
        COMMANDS[line.arguments.command.name](
            Call(ControlClient(line.sock), line.arguments, line.raw)
        )
    except RequestFailed as exc:
        complain(f"Error: Request failed. {debug_form(exc.error)}")
    except OSError as exc:
        complain(f"Error: {exc.strerror or exc}: {exc.filename or line.sock}")
    else:
        return EXIT_OK
    return EXIT_FAILED


# --- commands of the reference


def _info(call: Call) -> None:
    from nydusd.cli.control_text import info_text

    call.show(call.client.ask("GET", "/api/v1/daemon"), info_text)


def _set(call: Call) -> None:
    call.client.ask("PUT", "/api/v1/daemon", {"log_level": call.arguments.text("VALUE")})


METRICS: Final = {
    "backend": "/api/v1/metrics/backend",
    "cache": "/api/v1/metrics/blobcache",
    "fsstats": "/api/v1/metrics",
}


def _metrics(call: Call) -> None:
    from nydusd.cli import control_text

    category = call.arguments.text("category") or ""
    texts = {
        "backend": control_text.backend_text,
        "cache": control_text.cache_text,
        "fsstats": control_text.fsstats_text,
    }
    target, text = METRICS[category], texts[category]
    found = call.client.ask("GET", target)
    if not call.interval:
        call.show(found, text)
        return
    while True:
        before, began = found, time.monotonic()
        time.sleep(call.interval)
        found = call.client.ask("GET", target)
        seconds = time.monotonic() - began
        if category == "backend" and not call.raw:
            print_line(control_text.backend_change_text(before, found, seconds))
        else:
            call.show(found, text)


def _mount(call: Call) -> None:
    arguments = call.arguments
    body = {
        "source": arguments.text("source"),
        "fs_type": arguments.text("type"),
        "config": Path(arguments.text("config") or "").read_text(encoding="utf-8"),
    }
    call.client.ask("POST", "/api/v1/mount", body, mountpoint=arguments.text("mountpoint") or "")


def _umount(call: Call) -> None:
    mountpoint = call.arguments.text("mountpoint") or ""
    call.client.ask("DELETE", "/api/v1/mount", mountpoint=mountpoint)


# --- ours


def _top(call: Call) -> None:
    from nydusd.cli.top import look, top_text

    seconds = call.interval or 1
    rounds = int(call.arguments.text("rounds") or 0)
    before = look(call.client)
    done = 0
    while not rounds or done < rounds:
        time.sleep(seconds)
        now = look(call.client)
        if call.raw:
            call.show(now._asdict(), str)
        else:
            print_line(_screen(top_text(before, now)))
        before = now
        done += 1


def _screen(text: str) -> str:
    return CLEAR + text if sys.stdout.isatty() else text


def _prefetch(call: Call) -> None:
    from nydusd.cli.control_text import prefetch_text

    while True:
        found = call.client.ask("GET", "/api/v1/metrics/prefetch")
        call.show(found, prefetch_text)
        running = any(state and state["state"] == "running" for state in found.values())
        if not (call.arguments.flag("progress") and running):
            return
        time.sleep(PROGRESS_SECONDS)


def _cache(call: Call) -> None:
    from nydusd.cli.control_text import blobs_text

    mountpoint = call.arguments.text("mountpoint")
    query = {} if mountpoint is None else {"id": mountpoint}
    blobs = call.client.ask("GET", "/api/v1/metrics/blobs", **query)
    call.show(blobs, blobs_text)


COMMANDS: Final[dict[str, Callable[[Call], None]]] = {
    "info": _info,
    "set": _set,
    "metrics": _metrics,
    "mount": _mount,
    "umount": _umount,
    "top": _top,
    "prefetch": _prefetch,
    "cache": _cache,
}


if __name__ == "__main__":
    sys.exit(main())
