"""What every system test gets: the daemon, and a way to run it that leaves nothing behind."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.control import wait_for
from tests.system.daemon import Command, Daemon, mount_id, parse_command, v1_config
from tests.system.images import Image

# The same tests against another nydusd, to see what that one does.
COMMAND_ENV = "NYDUSD_TEST_COMMAND"


@pytest.fixture(scope="session")
def nydusd() -> Command:
    """The daemon under test."""
    text = os.environ.get(COMMAND_ENV)
    return parse_command(text) if text else Command([sys.executable, "-m", "nydusd.cli.nydusd"])


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to mount on; the test fails if something is still mounted at its end."""
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    assert mount_id(path) is None, "a mount was left behind"


Serve = Callable[..., Daemon]


@pytest.fixture
def serve(nydusd: Command, mountpoint: Path, tmp_path: Path) -> Iterator[Serve]:
    """A function that makes a daemon for an image: not started, stopped at the end of the test.

    `serve(image, cache=..., options=..., blobs=..., **v1_config's)`; `cache` defaults to a folder
    `cache` of the test, None is the dummycache.
    """
    daemons: list[Daemon] = []
    default_cache = tmp_path / "cache"

    def make(
        image: Image | None,
        cache: Path | None = default_cache,
        options: tuple[str, ...] = (),
        blobs: Path | None = None,
        **settings: Any,
    ) -> Daemon:
        config = None
        if image is not None:
            if cache is not None:
                cache.mkdir(exist_ok=True)
            if blobs is None:
                blobs = image.blobs if image.blobs.exists() else tmp_path
            config = tmp_path / "config.json"
            config.write_text(json.dumps(v1_config(blobs, cache, **settings)))
        daemon = Daemon(
            nydusd.argv,
            mountpoint,
            bootstrap=image and image.bootstrap,
            config=config,
            options=options,
            env=nydusd.env,
        )
        daemons.append(daemon)
        return daemon

    yield make
    for daemon in daemons:
        daemon.stop()


@pytest.fixture
def now() -> float:
    """When the test began, before it started a daemon."""
    return time.time()


@pytest.fixture
def shared(serve: Serve, tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    """A daemon that mounts nothing by itself, and its control socket."""
    sock = tmp_path / "api.sock"
    with serve(None, options=("--apisock", str(sock))) as daemon:
        wait_for(sock)
        yield daemon, sock
