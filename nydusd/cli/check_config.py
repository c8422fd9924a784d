"""`--check-config`: all that is wrong with a configuration, one line each, nothing mounted."""

from nydusd.base.errors import ConfigError, NydusError
from nydusd.cli.parser import Arguments
from nydusd.cli.settings import checked_virtual_mountpoint, read_prefetch_list
from nydusd.config.load import examine, read_config_file
from nydusd.config.model import Config


def check_config(arguments: Arguments) -> tuple[list[str], bool]:
    """The lines to print, and whether a daemon with *arguments* would get past all of this.

    Looks at the configuration, and at what else of the command line names a file to read.
    """
    file = arguments.text("config") or ""
    config: Config | None = None
    lines: list[str] = []
    errors = 0
    try:
        report = examine(read_config_file(file))
    except ConfigError as exc:
        errors += 1
        lines.append(f"error: {exc}")
    else:
        config = report.config
        errors += len(report.errors)
        lines += [f"error: {file}: {each}" for each in report.errors]
        lines += [f"warning: {file}: {each}" for each in report.warnings]
        if not errors:
            lines.append(f"{file}: {report.format}")
    for check in (
        lambda: read_prefetch_list(arguments.text("prefetch-files")),
        lambda: checked_virtual_mountpoint(arguments.text("virtual-mountpoint") or "/"),
        lambda: _check_image(arguments.text("bootstrap"), config),
    ):
        try:
            check()
        except (NydusError, OSError) as exc:
            problems = exc.problems if isinstance(exc, ConfigError) else (str(exc),)
            errors += len(problems)
            lines += [f"error: {each}" for each in problems]
    return lines, errors == 0


def _check_image(bootstrap: str | None, config: Config | None) -> None:
    if bootstrap is None:
        return
    from nydusd.daemon.image_rules import check_image  # brings the readers of both versions

    check_image(bootstrap, config)
