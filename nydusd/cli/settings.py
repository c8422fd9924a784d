"""From a command line that makes sense to what the daemon is to serve: files are read here."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from nydusd.base.errors import ConfigError
from nydusd.cli.parser import Arguments
from nydusd.config.environment import AUTH, with_environment
from nydusd.config.load import load_config, local_config_text, parse_config
from nydusd.config.model import Config
from nydusd.config.v2 import to_v2_dict
from nydusd.daemon.crash import mounted_at
from nydusd.daemon.settings import Settings

# Far above any list of paths; a device or an endless file must not fill the memory.
MOST_LIST_BYTES: Final = 64 << 20


def settings_of(
    arguments: Arguments, environ: Mapping[str, str], *, waits: bool = False
) -> Settings:
    """What the daemon is to serve; `ConfigError` or `OSError` when something cannot be used.

    Without a bootstrap the configuration file is not looked at: callers name a template there
    that need not be a configuration. One that *waits* for the session of another daemon gets its
    mounts with it: what the command line asks for is not looked at either.
    """
    bootstrap = arguments.text("bootstrap")
    config: Config | None = None
    config_text = ""
    prefetch_files: tuple[str, ...] = ()
    if waits:
        bootstrap = None
    if bootstrap is not None:
        prefetch_files = read_prefetch_list(arguments.text("prefetch-files"))
        config, config_text = _configuration(arguments, environ)
    return Settings(
        mountpoint=checked_mountpoint(arguments.text("mountpoint") or ""),
        threads=int(arguments.text("fuse-threads") or 0),
        failover_policy=arguments.text("failover-policy") or "",
        writable=arguments.flag("writable"),
        shared_dir=None if waits else arguments.text("shared-dir"),
        bootstrap=bootstrap,
        config=config,
        config_text=config_text,
        localfs_dir=arguments.text("localfs-dir"),
        prefetch_files=prefetch_files,
        virtual_mountpoint=checked_virtual_mountpoint(arguments.text("virtual-mountpoint") or "/"),
        apisock=arguments.text("apisock"),
        metrics_address=arguments.text("metrics-address"),
        id=arguments.text("id"),
        supervisor=arguments.text("supervisor"),
        waits=waits,
    )


def checked_mountpoint(path: str) -> str:
    """*path* without symbolic links, an existing directory; else `OSError`.

    That also keeps out `/dev/fd/N`: libfuse would resolve it and mount over the device node of
    the whole machine.
    """
    if not path:
        raise FileNotFoundError(errno.ENOENT, "--mountpoint is empty")
    if (mounted := mounted_at(path)) is not None:
        return mounted  # whoever served it may be dead, and a look at it would wait for ever
    real = os.path.realpath(path, strict=True)
    if not Path(real).is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return real


def checked_virtual_mountpoint(path: str) -> str:
    """*path* as an absolute path without `.`, `..` and double slashes; else `ConfigError`."""
    if not path.startswith("/") or ".." in PurePosixPath(path).parts or "\0" in path:
        raise ConfigError(f"--virtual-mountpoint {path!a}: an absolute path without .. is needed")
    return "/" + "/".join(PurePosixPath(path).parts[1:])


def read_prefetch_list(path: str | None) -> tuple[str, ...]:
    """The absolute paths in the file at *path*, one a line, blank lines dropped; `ConfigError`."""
    if path is None:
        return ()
    unusable = 'InvalidArguments("the prefetch-files arg is not a file path")'
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_LIST_BYTES + 1)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{unusable}: {path!a}: {exc}") from exc
    if len(data) > MOST_LIST_BYTES:
        raise ConfigError(f"{unusable}: {path!a}: more than {MOST_LIST_BYTES} bytes")
    lines = [line.strip() for line in os.fsdecode(data).split("\n")]
    paths = tuple(line for line in lines if line)
    for each in paths:
        if not each.startswith("/") or "\0" in each:
            raise ConfigError(
                f"service mount error: invalid prefetch file list: {each[:100]!a} in {path!a}"
                " is not an absolute path"
            )
    return paths


def _configuration(arguments: Arguments, environ: Mapping[str, str]) -> tuple[Config, str]:
    """The configuration that the command line names, and its text."""
    file, blob_dir = arguments.text("config"), arguments.text("localfs-dir")
    if file is None and blob_dir is None:
        raise ConfigError('InvalidArguments("both --config and --localfs-dir are missing")')
    try:
        if file is not None:
            config, text = load_config(file)
        else:
            text = local_config_text(blob_dir or "")
            config = parse_config(text)
    except ConfigError as exc:
        message = f"service mount error: RAFS failed to handle request, {exc}"
        raise ConfigError(message, exc.problems) from exc
    changed = with_environment(config, environ)
    if environ.get(AUTH):  # the text of an upgrade's state must have the credentials in force
        text = json.dumps(to_v2_dict(changed))
    return changed, text
