"""The command `nydusd`: arguments in, exit code out; in between it becomes the daemon.

Nothing is forked: the process that was started is the one that serves and is signalled. Modules
are imported when the command line asks for them; `--version` needs none but the version.
"""

import sys
from collections.abc import Sequence

from nydusd.cli.command import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    complain,
    not_in_this_version,
    print_line,
    run_command,
    show_version,
)

# Not from typing, whose import takes 11 of the 60 ms that `--version` has; mypy knows the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from nydusd.cli.parser import Arguments

NAME = "nydusd"
TRACES_SECONDS = 2.0  # at the end, for a collector that is slow


def main(argv: Sequence[str] | None = None) -> int:
    """Run nydusd with *argv* (the process's own by default) to its end; the exit code."""
    return run_command(argv, NAME, _run)


def _run(words: list[str]) -> int:
    from nydusd.cli.options import NYDUSD, later_features
    from nydusd.cli.parser import UsageError

    try:
        arguments = NYDUSD.parse(words)
    except UsageError as exc:
        complain(exc.text)
        return EXIT_USAGE
    if arguments.show == "version":
        return show_version(NAME)
    if arguments.show == "help":
        print_line(NYDUSD.help_text(arguments.command))
        return EXIT_OK
    if features := later_features(arguments):
        from nydusd.base.os_error import debug_custom_error

        refusal = debug_custom_error("Unsupported", not_in_this_version(features))
        complain(f"Error: {refusal}")
        return EXIT_FAILED
    if arguments.flag("check-config"):
        from nydusd.cli.check_config import check_config

        lines, usable = check_config(arguments)
        print_line("\n".join(lines))
        return EXIT_OK if usable else EXIT_FAILED
    if arguments.flag("check-backend"):
        import os

        from nydusd.cli.check_backend import check_backend

        sound = True
        for grade, line in check_backend(arguments, os.environ):
            print_line(line)
            sound = sound and grade != "error"
        return EXIT_OK if sound else EXIT_FAILED
    return _serve(arguments)


def _serve(arguments: "Arguments") -> int:
    import os
    import signal

    # Until the daemon takes signals itself, SIGINT ends the process at once. Python's own handler
    # raises in the midst of an import, and where that exception is swallowed the signal is lost.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nydusd.base import log, tracing
    from nydusd.base.errors import ConfigError, NydusError
    from nydusd.base.os_error import debug_custom_error, debug_os_error
    from nydusd.daemon.process import forbid_core_dumps, raise_open_files_limit

    forbid_core_dumps(os.environ)
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
        tracing.switch_on(os.environ)
        try:
            return _become_daemon(arguments)
        finally:
            tracing.switch_off(TRACES_SECONDS)
    except NydusError as exc:
        log.logger.error("%s", exc)
        kind = "InvalidInput" if exc.errno == 22 else "Other"
        complain(f"Error: {debug_custom_error(kind, str(exc))}")
    except OSError as exc:
        log.logger.error("%s", exc)
        complain(f"Error: {debug_os_error(exc)}")
    except Exception as exc:
        log.logger.exception("unexpected %s", type(exc).__name__)
        words = debug_custom_error("Other", f"{type(exc).__name__}: {exc}")
        complain(f"Error: {words}")
    return EXIT_FAILED


def _become_daemon(arguments: "Arguments") -> int:
    if arguments.command.name == "singleton":
        from nydusd.cli.singleton import become_singleton

        return become_singleton(arguments)
    import os

    apisock = arguments.text("apisock")
    if apisock is not None:
        return _become_daemon_with_api(arguments, apisock)
    if arguments.flag("upgrade"):
        from nydusd.base.errors import ConfigError

        raise ConfigError("--upgrade needs --apisock: the takeover is asked for there")
    from nydusd.cli.settings import settings_of

    settings = settings_of(arguments, os.environ)
    from nydusd.daemon.daemon import run

    return run(settings)


def _become_daemon_with_api(arguments: "Arguments", apisock: str) -> int:
    import os

    from nydusd.api.socket_file import SocketFile
    from nydusd.daemon.service_manager import take_listening_socket

    activated = take_listening_socket(apisock)
    socket_file = SocketFile(apisock, activated)
    waits = arguments.flag("upgrade")
    if not waits and activated is None:  # where systemd listens, the file says nothing
        waits = _has_crashed(arguments.text("mountpoint") or "", apisock)
    if waits or arguments.text("supervisor") is not None:
        # Before all that takes time: whoever starts a successor gives it little until it listens,
        # and who supervises daemons looks for the socket with pauses of 100 ms and more, while a
        # container waits. Requests wait in the socket until the rest is there, the mount included.
        socket_file.listen()
    try:
        from nydusd.cli.settings import settings_of

        settings = settings_of(arguments, os.environ, waits=waits)
        from nydusd.api.run import run

        return run(settings, socket_file)
    finally:
        socket_file.remove()


def _has_crashed(mountpoint: str, apisock: str) -> bool:
    """Whether another daemon died here, as far as can be seen; nobody listens at *apisock*."""
    from nydusd.base import log
    from nydusd.daemon.crash import is_left_behind

    found = is_left_behind(mountpoint, apisock)
    if found:
        log.logger.warning("A previous daemon crashed! Try to failover later.")
    return found


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


def command() -> "NoReturn":
    """The console script: `main` with the arguments of the process, then its end, at once.

    What an interpreter takes apart at its end is 20 ms of waiting for whoever waits for a daemon
    to end, and in an upgrade readers wait for that. Everything of ours is closed already.
    """
    import gc

    gc.disable()  # what is imported stays: looking through it takes a tenth of the start
    code = main()
    import atexit
    import os

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                code = code or EXIT_FAILED
    os._exit(code)


if __name__ == "__main__":
    command()
