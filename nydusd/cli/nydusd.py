"""The command `nydusd`: arguments in, exit code out; in between it becomes the daemon.

Nothing is forked: the process that was started is the one that serves and is signalled. Modules
are imported when the command line asks for them; `--version` needs none but the version.
"""

import sys
from collections.abc import Sequence

# Not from typing, whose import takes 11 of the 60 ms that `--version` has; mypy knows the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from nydusd.cli.parser import Arguments

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # as a shell reports SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run nydusd with *argv* (the process's own by default) to its end; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] in (["--version"], ["-V"]):
            return _show_version()
        return _run(words)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # somebody closed our stdout, as `nydusd --help | head` does
        return EXIT_FAILED


def _show_version() -> int:
    from nydusd.base import version

    # The carriage return is the reference's: clients search for `Git Commit:\s*(.+)`.
    _print(
        f"nydusd \rVersion: \t{version.VERSION}\nGit Commit: \t{version.GIT_COMMIT}\n"
        f"Build Time: \t{version.BUILD_TIME}\nProfile: \t{version.PROFILE}\n"
        f"Rustc: \t\t{version.COMPILER}\n"
    )
    return EXIT_OK


def _run(words: list[str]) -> int:
    from nydusd.cli.options import NYDUSD, later_features
    from nydusd.cli.parser import UsageError

    try:
        arguments = NYDUSD.parse(words)
    except UsageError as exc:
        _complain(exc.text)
        return EXIT_USAGE
    if arguments.show == "version":
        return _show_version()
    if arguments.show == "help":
        _print(NYDUSD.help_text(arguments.command))
        return EXIT_OK
    if features := later_features(arguments):
        verb = "is" if len(features) == 1 else "are"
        message = f"{', '.join(features)} {verb} not in this version yet"
        _complain(_custom_error("Unsupported", message))
        return EXIT_FAILED
    if arguments.flag("check-config"):
        from nydusd.cli.check_config import check_config

        lines, usable = check_config(arguments)
        _print("\n".join(lines))
        return EXIT_OK if usable else EXIT_FAILED
    return _serve(arguments)


def _serve(arguments: "Arguments") -> int:
    import os

    from nydusd.base import log
    from nydusd.base.errors import ConfigError, NydusError
    from nydusd.daemon.process import raise_open_files_limit

    try:
        log.set_up(
            arguments.text("log-level") or "info",
            arguments.text("log-file"),
            _number(arguments.text("log-rotation-size"), OSError(22, os.strerror(22))),
            os.environ,
        )
        log.logger.info(_version_line())
        unusable = ConfigError("invalid value for option `rlimit-nofile`")
        raise_open_files_limit(_number(arguments.text("rlimit-nofile"), unusable))
        return _become_daemon(arguments)
    except NydusError as exc:
        log.logger.error("%s", exc)
        kind = "InvalidInput" if exc.errno == 22 else "Other"
        _complain(_custom_error(kind, str(exc)))
    except OSError as exc:
        log.logger.error("%s", exc)
        _complain(_os_error(exc))
    except Exception as exc:
        log.logger.exception("unexpected %s", type(exc).__name__)
        _complain(_custom_error("Other", f"{type(exc).__name__}: {exc}"))
    return EXIT_FAILED


def _become_daemon(arguments: "Arguments") -> int:
    import os

    from nydusd.cli.settings import settings_of

    settings = settings_of(arguments, os.environ)
    from nydusd.daemon.daemon import run

    return run(settings)


def _version_line() -> str:
    from nydusd.base import version

    return (
        f'Program Version: {version.VERSION}, Git Commit: "{version.GIT_COMMIT}", '
        f'Build Time: "{version.BUILD_TIME}", Profile: "{version.PROFILE}", '
        f'Rustc Version: "{version.COMPILER}"'
    )


def _number(text: str | None, unusable: Exception) -> int:
    """The number that *text* writes, below 2**32; raises *unusable* when it is none."""
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise unusable
    if int(text) >= 1 << 32:
        raise unusable
    return int(text)


ERROR_KINDS = {
    1: "PermissionDenied",
    2: "NotFound",
    13: "PermissionDenied",
    16: "ResourceBusy",
    17: "AlreadyExists",
    20: "NotADirectory",
    22: "InvalidInput",
    28: "StorageFull",
    30: "ReadOnlyFilesystem",
    95: "Unsupported",
}


def _os_error(exc: OSError) -> str:
    """The last line of stderr for a call that the system refused, as the reference words it."""
    number = exc.errno or 5
    kind = ERROR_KINDS.get(number, "Uncategorized")
    return f"Error: Os {{ code: {number}, kind: {kind}, message: {_quoted(exc.strerror or '')} }}"


def _custom_error(kind: str, message: str) -> str:
    """The last line of stderr for every other failure."""
    return f"Error: Custom {{ kind: {kind}, error: {_quoted(message)} }}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in escaped) + '"'


def _print(text: str) -> None:
    """*text* and a newline on stdout, whatever characters it has."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def _complain(text: str) -> None:
    """*text* and a newline on stderr; a closed one hears nothing."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stderr.buffer.flush()
    except (OSError, ValueError):
        return


if __name__ == "__main__":
    sys.exit(main())
