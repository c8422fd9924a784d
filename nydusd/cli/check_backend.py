"""`--check-backend`: asks every source of a configuration for a byte, and tells what came."""

from collections.abc import Iterator, Mapping

from nydusd.base.errors import ConfigError, NydusError
from nydusd.cli.parser import Arguments
from nydusd.config.environment import with_environment
from nydusd.config.load import examine, read_config_file


def check_backend(arguments: Arguments, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of a grade ("ok", "warning", "error") and the line to print, as they are found."""
    file = arguments.text("config") or ""
    try:
        report = examine(read_config_file(file))
    except ConfigError as exc:
        yield "error", f"error: {exc}"
        return
    for grade, texts in (("error", report.errors), ("warning", report.warnings)):
        for text in texts:
            yield grade, f"{grade}: {file}: {text}"
    if report.config is None or report.config.backend is None:
        return
    try:
        blob_id = _blob_id(arguments)
    except (NydusError, OSError) as exc:
        yield "error", f"error: {exc}"
        return
    config = with_environment(report.config, environ).backend
    assert config is not None
    yield "ok", f"backend {config.type}, blob {blob_id}"
    from nydusd.backend.probe import probe_backend  # brings libcurl

    for found in probe_backend(config, blob_id):
        yield found.grade, f"{found.grade}: {found.text}"


def _blob_id(arguments: Arguments) -> str:
    """The blob to ask for: the one that is named, else the first of the bootstrap."""
    named = arguments.text("blob-id")
    if named is not None:
        return named
    bootstrap = arguments.text("bootstrap")
    if bootstrap is None:
        raise ConfigError("--check-backend asks for a blob: name it with --blob-id or --bootstrap")
    from nydusd.daemon.image_rules import blob_ids  # brings the readers of both versions

    found = blob_ids(bootstrap)
    if not found:
        raise ConfigError(f"{bootstrap!a}: the image has no blob with data; name one by --blob-id")
    return found[0]
