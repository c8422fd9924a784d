"""`nydusd singleton`: from its command line to a daemon that serves blobs and mounts nothing."""

import json
import os
from pathlib import Path
from typing import Any, Final

from nydusd.base.errors import ConfigError
from nydusd.cli.parser import Arguments
from nydusd.config.blob_entry import BlobEntry, make_entry
from nydusd.config.load import read_config_file
from nydusd.daemon.settings import SingletonSettings

MOST_CONFIG_BYTES: Final = 64 << 20  # a list of images, each with a configuration


def become_singleton(arguments: Arguments) -> int:
    """Serve as *arguments* ask until the end; the exit status."""
    settings = singleton_settings(arguments)
    if settings.apisock is None:
        from nydusd.daemon.singleton import run

        return run(settings)
    from nydusd.api.socket_file import SocketFile
    from nydusd.daemon.service_manager import take_listening_socket

    socket_file = SocketFile(settings.apisock, take_listening_socket(settings.apisock))
    try:
        from nydusd.api.run import run_singleton

        return run_singleton(settings, socket_file)
    finally:
        socket_file.remove()


def singleton_settings(arguments: Arguments) -> SingletonSettings:
    """What *arguments* ask for; `ConfigError` or `OSError` when it cannot be."""
    fscache = arguments.text("fscache")
    if fscache is not None:
        fscache = os.path.realpath(fscache, strict=True)
        if not Path(fscache).is_dir():
            raise ConfigError("--fscache options is not a directory")
    apisock = arguments.text("apisock")
    if arguments.flag("upgrade") and apisock is None:
        raise ConfigError("--upgrade needs --apisock: the takeover is asked for there")
    return SingletonSettings(
        entries=read_entries(arguments.text("config")),
        fscache=fscache,
        fscache_tag=arguments.text("fscache-tag"),
        fscache_threads=int(arguments.text("fscache-threads") or 0),
        apisock=apisock,
        id=arguments.text("id"),
        supervisor=arguments.text("supervisor"),
        waits=arguments.flag("upgrade"),
    )


def read_entries(path: str | None) -> tuple[BlobEntry, ...]:
    """The list `blobs` in the file at *path*, a JSON object; `ConfigError`.

    Other keys mean nothing here: the same file may configure more than a daemon.
    """
    if path is None:
        return ()
    try:
        raw = json.loads(read_config_file(path, MOST_CONFIG_BYTES))
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"invalid configuration file: {path}: {exc}") from exc
    blobs = raw.get("blobs") if isinstance(raw, dict) else None
    if blobs is None:
        return ()
    if not isinstance(blobs, list):
        raise ConfigError(f"invalid configuration file: {path}: blobs is not a list")
    return tuple(_entry(path, index, each) for index, each in enumerate(blobs))


def _entry(path: str, index: int, raw: Any) -> BlobEntry:  # noqa: ANN401 - JSON
    where = f"invalid configuration file: {path}: blobs[{index}]"
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: not an object")
    for name in ("type", "id"):
        if not isinstance(raw.get(name), str):
            raise ConfigError(f"{where}: {name}: missing, or not text")
    if not isinstance(raw.get("domain_id", ""), str):
        raise ConfigError(f"{where}: domain_id: not text")
    try:
        return make_entry(raw, json.dumps(raw))
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc}", exc.problems) from exc
