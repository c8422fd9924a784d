"""What the programs have in common: exit codes, the outermost frame, what goes to the terminal.

Imports nothing of ours: `--version` is asked often and waits for nothing that it does not need.
"""

import os
import sys
from collections.abc import Callable, Sequence

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # as a shell reports SIGINT


def run_command(argv: Sequence[str] | None, name: str, run: Callable[[list[str]], int]) -> int:
    """The exit code of *run* with *argv* (the process's own by default); answers `--version`.

    *name* stands before the version, as in the reference.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _fill_standard_descriptors()
    try:
        if words[:1] in (["--version"], ["-V"]):
            return show_version(name)
        return run(words)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # somebody closed our stdout, as `nydusd --help | head` does
        # The interpreter flushes what is left at its end; it must not fail once more there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except _StdoutError as exc:
        complain(f"Error: standard output: {exc.args[0]}")
        return EXIT_FAILED


class _StdoutError(Exception):
    """Stdout takes nothing, and why: a full disk behind it, for example."""


def _fill_standard_descriptors() -> None:
    """Give descriptors 0 to 2 that the caller has closed to /dev/null.

    Else a file that is opened next gets one of them, and what is meant for stderr with it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(number, True)


def show_version(name: str) -> int:
    """Print what this build is, in the lines that clients search."""
    from nydusd.base import version

    # The carriage return is the reference's: clients search for `Git Commit:\s*(.+)`.
    print_line(
        f"{name} \rVersion: \t{version.VERSION}\nGit Commit: \t{version.GIT_COMMIT}\n"
        f"Build Time: \t{version.BUILD_TIME}\nProfile: \t{version.PROFILE}\n"
        f"Rustc: \t\t{version.COMPILER}\n"
    )
    return EXIT_OK


def print_line(text: str) -> None:
    """*text* and a newline on stdout, whatever characters it has; a closed one gets nothing."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        # What is left in the buffer must not fail once more at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _StdoutError(exc.strerror) from exc


def complain(text: str) -> None:
    """*text* and a newline on stderr; a closed one hears nothing."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stderr.buffer.flush()
    except (OSError, ValueError):
        return


def not_in_this_version(features: list[str]) -> str:
    """The sentence that refuses *features* which come later."""
    verb = "is" if len(features) == 1 else "are"
    return f"{', '.join(features)} {verb} not in this version yet"
