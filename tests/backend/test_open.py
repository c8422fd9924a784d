import pytest

from nydusd.backend.localfs import LocalFsBackend
from nydusd.backend.open import open_backend
from nydusd.base.errors import ConfigError
from nydusd.config.model import Backend, LocalFs


def test_localfs_is_opened():
    backend = open_backend(Backend("localfs", localfs=LocalFs(dir="/nowhere")))
    assert isinstance(backend, LocalFsBackend)
    backend.close()


def test_an_unknown_kind_or_a_missing_section_is_a_config_error():
    with pytest.raises(ConfigError, match="floppy"):
        open_backend(Backend("floppy"))
    with pytest.raises(ConfigError, match="section"):
        open_backend(Backend("localfs"))
