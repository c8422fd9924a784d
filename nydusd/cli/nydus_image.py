"""The command `nydus-image`: arguments in, exit code out; the work is done by `build`."""

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NoReturn

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

if TYPE_CHECKING:
    from types import FrameType

    from nydusd.build.create_options import CreateOptions
    from nydusd.cli.parser import Arguments

NAME: Final = ""  # the reference's says the version without one
GLOBAL_OPTIONS: Final = ("-L", "--log-file", "-l", "--log-level")


def main(argv: Sequence[str] | None = None) -> int:
    """Run nydus-image with *argv* (the process's own by default); the exit code."""
    return run_command(argv, NAME, _run)


def _end_as_interrupted(number: int, _frame: "FrameType | None") -> NoReturn:
    """Leave by way of every `finally`: what was half written is removed."""
    raise SystemExit(128 + number)


def _with_command_first(words: list[str]) -> list[str]:
    """*words* with the options of logging, which may stand before the command, behind it."""
    moved: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith(GLOBAL_OPTIONS):
        alone = rest[0] in GLOBAL_OPTIONS
        moved += rest[: 1 + alone]
        del rest[: 1 + alone]
    return [*rest[:1], *moved, *rest[1:]] if rest and not rest[0].startswith("-") else words


def _run(words: list[str]) -> int:
    from nydusd.cli.image_options import LATER_COMMANDS, NYDUS_IMAGE
    from nydusd.cli.parser import UsageError

    signal.signal(signal.SIGTERM, _end_as_interrupted)
    words = _with_command_first(words)
    if words[:1] and words[0] in LATER_COMMANDS and not {"-h", "--help"} & set(words):
        return _fail(not_in_this_version([f"nydus-image {words[0]}"]))
    try:
        arguments = NYDUS_IMAGE.parse(words)
        if not arguments.show:
            _check_places(arguments)
    except UsageError as exc:
        complain(exc.text)
        return EXIT_USAGE
    if arguments.show == "version":
        return show_version(NAME)
    if arguments.show == "help" or not arguments.command.name:
        print_line(NYDUS_IMAGE.help_text(arguments.command))
        return EXIT_OK
    if features := _later_features(arguments):
        return _fail(not_in_this_version(features))
    return _do(arguments)


def _check_places(arguments: "Arguments") -> None:
    """`UsageError` unless it is said where the results go, or what to check."""
    from nydusd.cli.image_options import NYDUS_IMAGE
    from nydusd.cli.parser import usage_error

    given = arguments.given
    missing = []
    if arguments.command.name == "create":
        if not given & {"bootstrap", "blob-dir", "blob-inline-meta"}:
            missing.append("--bootstrap <bootstrap>")
        if not given & {"blob", "blob-dir"}:
            missing.append("--blob <blob>")
    elif arguments.command.name == "check":
        if not given & {"bootstrap", "BOOTSTRAP"}:
            missing.append("<BOOTSTRAP>")
        if {"bootstrap", "BOOTSTRAP"} <= given:
            raise usage_error(
                "the argument '--bootstrap <bootstrap>' cannot be used with '<BOOTSTRAP>'",
                NYDUS_IMAGE.usage(arguments.command),
            )
    if missing:
        raise usage_error(
            "the following required arguments were not provided:"
            + "".join(f"\n  {usage}" for usage in missing),
            NYDUS_IMAGE.usage(arguments.command),
        )


def _later_features(arguments: "Arguments") -> list[str]:
    """What *arguments* ask for that this version does not have, as it was written."""
    from nydusd.cli.image_options import LATER_TYPES

    features = [
        f"--{option.name}"
        for option in arguments.command.options
        if option.later and option.name in arguments.given
    ]
    kind = arguments.text("type")
    if kind in LATER_TYPES:
        features.append(f"--type {kind}")
    return features


def _do(arguments: "Arguments") -> int:
    import os

    from nydusd.base import log
    from nydusd.base.errors import NydusError

    try:
        log.set_up(arguments.text("log-level") or "info", arguments.text("log-file"), 0, os.environ)
        if arguments.command.name == "create":
            return _create(arguments)
        if arguments.command.name == "prefetch-list":
            return _prefetch_list(arguments)
        return _check(arguments)
    except NydusError as exc:
        return _fail(str(exc))
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        return _fail(f"{where}{exc.strerror or exc}")


def _create(arguments: "Arguments") -> int:
    import time

    from nydusd.base.log import logger
    from nydusd.build.create import create_image
    from nydusd.build.pack import Progress
    from nydusd.cli.progress import ProgressLine

    options = _create_options(arguments)
    progress = Progress()
    begin = time.monotonic()
    with ProgressLine(lambda: (progress.files, progress.bytes)):
        result = create_image(options, progress)
    bootstrap = str(result.bootstrap) if result.bootstrap else ""
    logger.info(
        "successfully built RAFS filesystem: meta blob path: %s, data blob size: %#x, "
        "data blobs: %s",
        bootstrap or "<none>",
        result.blob_size or 0,
        result.blobs,
    )
    trace = {
        "consumed_time": {"total_build": time.monotonic() - begin},
        "registered_events": {"blob_uncompressed_size": progress.bytes},
    }
    _write_json(arguments, bootstrap, result.blobs, trace)
    return EXIT_OK


def _create_options(arguments: "Arguments") -> "CreateOptions":
    from pathlib import Path

    from nydusd.base.errors import BuildError
    from nydusd.build.create_options import BUILDERS, COMPRESSORS, DIGESTERS, CreateOptions
    from nydusd.build.overlay import WhiteoutSpec
    from nydusd.build.prefetch import PrefetchPolicy

    def path(name: str) -> Path | None:
        text = arguments.text(name)
        return Path(text) if text else None

    def word(name: str) -> str:
        return arguments.text(name) or ""

    try:
        chunk_size = int(word("chunk-size"), 16)
    except ValueError:
        raise BuildError(f"chunk size {word('chunk-size')!r} is no hexadecimal number") from None
    dictionary = word("chunk-dict")
    kind, _, file = dictionary.rpartition("=")
    if kind not in ("", "bootstrap"):
        raise BuildError(f"chunk dictionary {dictionary!r}: only bootstraps can be one")
    policy = PrefetchPolicy(word("prefetch-policy"))
    return CreateOptions(
        source=Path(word("SOURCE")),
        bootstrap=path("bootstrap"),
        blob=path("blob"),
        blob_dir=path("blob-dir"),
        blob_id=word("blob-id"),
        inline_meta=arguments.flag("blob-inline-meta"),
        blob_toc=word("features") == "blob-toc",
        version=int(word("fs-version")),
        compressor=COMPRESSORS[word("compressor")],
        digester=DIGESTERS[word("digester")],
        chunk_size=chunk_size,
        aligned_chunk=arguments.flag("aligned-chunk"),
        explicit_uid_gid=not arguments.flag("repeatable"),
        whiteout_spec=WhiteoutSpec(word("whiteout-spec")),
        prefetch_policy=policy,
        prefetch_patterns=tuple(sys.stdin.buffer) if policy != PrefetchPolicy.NONE else (),
        parent_bootstrap=path("parent-bootstrap"),
        chunk_dict=Path(file) if file else None,
        revision=BUILDERS[word("builder")],
    )


def _check(arguments: "Arguments") -> int:
    from pathlib import Path

    from nydusd.base.log import one_line
    from nydusd.build.check import blob_line, check_image

    bootstrap = arguments.text("BOOTSTRAP") or arguments.text("bootstrap") or ""
    blob_dir = arguments.text("blob-dir")
    tell = print_line if arguments.flag("verbose") else None
    report = check_image(Path(bootstrap), Path(blob_dir) if blob_dir else None, tell)
    if report.findings:
        for finding in report.findings:
            complain(f"Error: {one_line(finding)}")
        return EXIT_FAILED
    print_line("RAFS filesystem metadata is valid, referenced data blobs: ")
    for blob in report.blobs:
        print_line(f"\t {blob_line(blob)}")
    _write_json(arguments, bootstrap, [blob.blob_id for blob in report.blobs], {})
    return EXIT_OK


def _prefetch_list(arguments: "Arguments") -> int:
    from pathlib import Path

    from nydusd.base.log import logger
    from nydusd.build.prefetch_list import PATTERN_BYTES_MAX, prefetch_list

    file = arguments.text("PATTERN")
    pattern = Path(file).read_bytes() if file else sys.stdin.buffer.read(PATTERN_BYTES_MAX)
    paths, unnamed = prefetch_list(Path(arguments.text("bootstrap") or ""), pattern)
    sys.stdout.buffer.write(b"".join(path + b"\n" for path in paths))
    sys.stdout.buffer.flush()
    if unnamed:
        logger.warning("%d files that were read have no name that a list can hold", unnamed)
    return EXIT_OK


def _write_json(
    arguments: "Arguments", bootstrap: str, blobs: list[str], trace: dict[str, object]
) -> None:
    """Write the result where `--output-json` asks for it."""
    file = arguments.text("output-json")
    if not file:
        return
    import json
    from pathlib import Path

    from nydusd.base import version

    result = {
        "version": f"{version.VERSION}-{version.GIT_COMMIT}",
        "bootstrap": bootstrap,
        "blobs": blobs,
        "trace": trace,
    }
    Path(file).write_text(json.dumps(result, indent=2))


def _fail(message: str) -> int:
    complain(f"Error: {message}")
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
