import pytest

from nydusd.backend.localfs import LocalFsBackend
from nydusd.backend.open import open_backend
from nydusd.base.errors import ConfigError, UnsupportedError
from nydusd.config.model import Backend, LocalFs


def test_localfs_is_opened():
    backend = open_backend(Backend("localfs", localfs=LocalFs(dir="/nowhere")))
    assert isinstance(backend, LocalFsBackend)
    backend.close()


@pytest.mark.parametrize("kind", ["localdisk"])
def test_a_kind_that_comes_later_says_so(kind):
    with pytest.raises(UnsupportedError, match=f"{kind} is not in this version yet"):
        open_backend(Backend(kind))


def test_an_unknown_kind_or_a_missing_section_is_a_config_error():
    with pytest.raises(ConfigError, match="floppy"):
        open_backend(Backend("floppy"))
    with pytest.raises(ConfigError, match="section"):
        open_backend(Backend("localfs"))
