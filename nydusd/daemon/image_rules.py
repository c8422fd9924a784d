"""What an image and a configuration must have in common before one is served with the other.

Asked before a mount, and by `nydusd --check-config`, which mounts nothing.
"""

from nydusd.base.errors import ConfigError
from nydusd.config.model import Config
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.load import load_bootstrap


def image_problems(bootstrap: Bootstrap, config: Config) -> list[str]:
    """Why *bootstrap* cannot be served with *config*, one line each; empty when it can.

    The words are the reference's, which clients search logs for. Unlike there, an image of version
    6 is served without a local cache too.
    """
    problems = []
    if bootstrap.version == 6 and config.rafs is not None and config.rafs.validate:
        problems.append(
            "Failed to configure device: Rafs v6 doesn't support integrity validation yet"
        )
    return problems


def check_image(path: str, config: Config | None) -> None:
    """Raise what is wrong with the bootstrap at *path*, by itself or together with *config*.

    `BootstrapError`, `OSError`, or `ConfigError` with all the problems at once.
    """
    bootstrap = load_bootstrap(path)
    problems = image_problems(bootstrap, config) if config is not None else []
    if problems:
        raise ConfigError("; ".join(problems), tuple(problems))


def blob_ids(path: str) -> list[str]:
    """The ids of the blobs of the bootstrap at *path* that hold data; `BootstrapError`."""
    return [info.blob_id for info in load_bootstrap(path).blobs if info.chunk_count]
