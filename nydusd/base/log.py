"""The daemon's log: the shape of a line, its level, its file and the rotation of that file.

All of the program logs through the logger "nydusd". A log that cannot be written (full disk,
closed pipe) loses lines and never stops the daemon. Safe to use from every thread.
"""

import errno
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LOGGER_NAME: Final = "nydusd"
TRACE: Final = 5
OFF: Final = logging.CRITICAL + 10
LEVELS: Final = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "off": OFF,
}
LEVEL_NAMES: Final = {
    TRACE: "TRACE",
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARN",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "ERROR",
}
COLOURS: Final = {logging.WARNING: "\x1b[38;5;208m", logging.ERROR: "\x1b[38;5;196m"}
COLOUR_END: Final = "\x1b[0m"
KEPT_ARCHIVES: Final = 10
LEVEL_VARIABLE: Final = "RUST_LOG"
# Errors of a disk that is full or broken: the daemon is worth more than its log.
DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})

logger = logging.getLogger(LOGGER_NAME)
# Until `set_up` nobody listens: an error of a command line goes to stderr in its own words.
logger.addHandler(logging.NullHandler())


def one_line(text: str) -> str:
    """*text* with everything escaped that could start another line or move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class LineFormatter(logging.Formatter):
    """`[2026-11-24 06:09:13.052750 +00:00] WARN [nydusd/fuse/mount.py:12] text`.

    INFO has no source position. The lines of a traceback follow, each after a tab.
    """

    def __init__(self, *, coloured: bool = False) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """The line of *record*, without a newline at its end."""
        level = LEVEL_NAMES.get(record.levelno, record.levelname)
        text = one_line(record.getMessage())
        start, end = "", ""
        if self._coloured and record.levelno >= logging.WARNING:
            colour = COLOURS[min(record.levelno, logging.ERROR)]
            start, end = colour, COLOUR_END
        line = f"[{start}{_timestamp(record.created)}{end}] {start}{level}{end} "
        if record.levelno != logging.INFO:
            line += f"[{_source(record.pathname)}:{record.lineno}] "
        line += f"{start}{text}{end}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n\t{one_line(each)}" for each in trace)
        return line


def _timestamp(seconds: float) -> str:
    """Local time with microseconds and the zone's offset."""
    local = time.localtime(seconds)
    offset = abs(local.tm_gmtoff) // 60
    sign = "-" if local.tm_gmtoff < 0 else "+"
    day = time.strftime("%Y-%m-%d %H:%M:%S", local)
    micros = int(seconds % 1 * 1_000_000)
    return f"{day}.{micros:06d} {sign}{offset // 60:02d}:{offset % 60:02d}"


def _source(path: str) -> str:
    """*path* from the package's name on: where it is installed tells a reader nothing."""
    _, found, inside = path.rpartition("/nydusd/")
    return f"nydusd/{inside}" if found else path.rpartition("/")[2]


class _FileDescriptorHandler(logging.Handler):
    """Writes each line with one `write` call; failures are counted, not raised."""

    def __init__(self, fd: int, *, coloured: bool = False) -> None:
        super().__init__()
        self.fd = fd
        self.lost_lines = 0
        self.setFormatter(LineFormatter(coloured=coloured))

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of *record*, or lose it."""
        try:
            self.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # whatever a log line brings, the thread that logs must go on
            self.lost_lines += 1

    def write(self, line: bytes) -> None:
        """All of *line*, in as few calls as the descriptor allows."""
        while line:
            line = line[os.write(self.fd, line) :]


class LogFile(_FileDescriptorHandler):
    """Appends to a file; with *rotate_bytes* a full one is renamed, compressed and in time removed.

    A name without an extension gets `.log`; the file's folder is made. With rotation the current
    file is `STEM_rCURRENT.EXT`, an old one `STEM_rYYYY-MM-DD_HH-MM-SS.EXT.gz`.
    """

    def __init__(self, name: str, rotate_bytes: int = 0) -> None:
        path = Path(name)
        if not path.suffix:
            path = path.with_name(path.name + ".log")
        self._stem, self._suffix = path.with_suffix("").name, path.suffix
        self.path = path.with_name(f"{self._stem}_rCURRENT{path.suffix}") if rotate_bytes else path
        self._rotate_bytes = rotate_bytes
        self._archivist: threading.Thread | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(self._open())
        self._size = os.fstat(self.fd).st_size  # guarded by the handler's lock

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, line: bytes) -> None:
        """Append *line*, after a rotation when the file is full."""
        if self._rotate_bytes and self._size > 0 and self._size + len(line) > self._rotate_bytes:
            self._rotate()
        super().write(line)
        self._size += len(line)

    def close(self) -> None:
        """Give up the file; an archive that is being made is finished first."""
        super().close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._archivist is not None:
            self._archivist.join()

    def _rotate(self) -> None:
        # On any failure the current file goes on growing: better than no log.
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        target = self.path.with_name(f"{self._stem}_r{stamp}{self._suffix}")
        count = 0
        while target.exists() or target.with_name(target.name + ".gz").exists():
            count += 1  # more than one in a second
            name = f"{self._stem}_r{stamp}.restart-{count:04d}{self._suffix}"
            target = self.path.with_name(name)
        try:
            self.path.rename(target)
            fresh = self._open()
        except OSError:
            self._size = 0
            return
        os.close(self.fd)
        self.fd, self._size = fresh, 0
        # Compressing takes seconds, and every thread that logs waits for the handler's lock.
        if self._archivist is None or not self._archivist.is_alive():
            self._archivist = threading.Thread(
                target=self._archive, name="log-archive", daemon=True
            )
            self._archivist.start()

    def _rotated(self, ending: str) -> list[Path]:
        """Rotated files with this *ending*, the oldest first."""
        pattern = re.escape(self._stem) + r"_r\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(\.restart-\d{4})?"
        shape = re.compile(pattern + re.escape(self._suffix + ending))
        found = [each for each in self.path.parent.iterdir() if shape.fullmatch(each.name)]
        return sorted(found, key=lambda each: each.name.removesuffix(self._suffix + ending))

    def _archive(self) -> None:
        """Compress what was rotated (also by an earlier process) and keep the newest archives."""
        import gzip  # for daemons that live long enough to need it
        import shutil

        try:
            for old in self._rotated(""):
                unfinished = old.with_name(old.name + ".gz.part")
                with old.open("rb") as source, gzip.open(unfinished, "wb", 6) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                unfinished.rename(old.with_name(old.name + ".gz"))
                old.unlink()
            for old in self._rotated(".gz")[:-KEPT_ARCHIVES]:
                old.unlink()
        except OSError as exc:
            logger.warning("cannot compress a rotated log file: %s", exc)


def level_from_environment(environ: Mapping[str, str]) -> str | None:
    """The level that `RUST_LOG` asks for, or `None`; filters for other modules are passed over."""
    level = None
    for directive in environ.get(LEVEL_VARIABLE, "").split("/")[0].split(","):
        module, equals, name = directive.strip().rpartition("=")
        if equals and module.strip() != LOGGER_NAME:
            continue
        if name.strip().lower() in LEVELS:
            level = name.strip().lower()
    return level


def set_level(name: str) -> None:
    """Log lines of level *name* (trace, debug, info, warn, error, off) and above from now on.

    `ValueError` for any other name.
    """
    if name not in LEVELS:
        raise ValueError(f"log level {name!r} is none of {', '.join(LEVELS)}")
    logger.setLevel(LEVELS[name])


def get_level() -> str:
    """The name of the level in force."""
    number = logger.getEffectiveLevel()
    return next((name for name, value in LEVELS.items() if value >= number), "off")


def set_up(
    level: str = "info",
    file: str | None = None,
    rotate_mib: int = 0,
    environ: Mapping[str, str] = os.environ,
) -> logging.Handler:
    """Log to *file*, or to stderr in colours; the handler that does it.

    `RUST_LOG` wins over *level*. `OSError` when *file* cannot be opened, except on a full or
    broken disk: then stderr takes its place, with a warning.
    """
    handler: logging.Handler
    trouble: OSError | None = None
    try:
        handler = LogFile(file, rotate_mib << 20) if file else _stderr_handler()
    except OSError as exc:
        if exc.errno not in DISK_ERRORS:
            raise
        handler, trouble = _stderr_handler(), exc
    logging.raiseExceptions = False
    logger.handlers[:] = [handler]
    logger.propagate = False
    set_level(level_from_environment(environ) or level)
    if trouble is not None:
        logger.warning("log file %s: %s; logging to stderr", file, trouble.strerror)
    return handler


def _stderr_handler() -> logging.Handler:
    return _FileDescriptorHandler(sys.__stderr__.fileno() if sys.__stderr__ else 2, coloured=True)
