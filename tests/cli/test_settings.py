"""From a good command line to what the daemon serves."""

import json

import pytest

from nydusd.base.errors import ConfigError
from nydusd.cli.options import NYDUSD
from nydusd.cli.settings import settings_of
from tests.config.test_load import V1


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(V1))
    return str(file)


def settings(*words, environ=None):
    return settings_of(NYDUSD.parse([str(word) for word in words]), environ or {})


def test_an_image_comes_with_its_configuration(tmp_path, config):
    (tmp_path / "list").write_text("  /usr/bin \n\n/etc/hosts\n")

    found = settings(
        *("-M", tmp_path, "-B", "boot", "-C", config, "--prefetch-files", tmp_path / "list"),
        *("--thread-num", 7, "--writable", "--failover-policy", "none", "-m", "/a//b/"),
    )

    assert found.mountpoint == str(tmp_path)
    assert (found.threads, found.failover_policy, found.writable) == (7, "none", True)
    assert found.bootstrap == "boot"
    assert found.config.backend.localfs.dir == "/blobs"
    assert json.loads(found.config_text) == V1
    assert found.prefetch_files == ("/usr/bin", "/etc/hosts")
    assert found.virtual_mountpoint == "/a/b"


def test_without_a_bootstrap_the_configuration_is_not_looked_at(tmp_path):
    (tmp_path / "template").write_text('{"device": {"backend": ,}}')

    found = settings("-M", tmp_path, "-C", tmp_path / "template")

    assert found.config is None
    assert found.bootstrap is None


def test_a_folder_of_blobs_is_a_configuration(tmp_path):
    found = settings("-M", tmp_path, "-B", "boot", "-D", tmp_path)

    assert found.config.backend.localfs.dir == str(tmp_path)
    assert found.config.cache.filecache.work_dir == str(tmp_path)
    assert json.loads(found.config_text)["device"]["cache"]["type"] == "blobcache"


def test_an_image_without_any_configuration_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="both --config and --localfs-dir are missing"):
        settings("-M", tmp_path, "-B", "boot")


def test_a_bad_configuration_is_refused_in_the_words_of_a_failed_mount(tmp_path):
    (tmp_path / "bad").write_text("{")

    with pytest.raises(
        ConfigError,
        match="service mount error: RAFS failed to handle request,"
        " Failed to load config: failed to parse configuration information",
    ):
        settings("-M", tmp_path, "-B", "boot", "-C", tmp_path / "bad")


def test_credentials_of_the_environment_are_in_the_configuration_and_its_text(tmp_path):
    registry = {"type": "registry", "config": {"host": "h", "repo": "r", "auth": "b2xkOm9sZA=="}}
    (tmp_path / "c").write_text(json.dumps({"device": {"backend": registry}, "mode": "direct"}))

    found = settings(
        "-M", tmp_path, "-B", "b", "-C", tmp_path / "c", environ={"IMAGE_PULL_AUTH": "dTpw"}
    )

    assert found.config.backend.registry.auth == "dTpw"
    assert json.loads(found.config_text)["backend"]["registry"]["auth"] == "dTpw"
    assert "dTpw" not in repr(found)


def test_a_mountpoint_is_taken_without_symbolic_links(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    assert settings("-M", tmp_path / "link").mountpoint == str(tmp_path / "real")


@pytest.mark.parametrize("path", ["missing", "file"])
def test_a_mountpoint_that_is_no_directory_is_refused(tmp_path, path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError, match=r"No such file|Not a directory"):
        settings("-M", tmp_path / path)


def test_an_empty_mountpoint_is_refused():
    with pytest.raises(OSError, match="--mountpoint is empty"):
        settings("--mountpoint=")


def test_a_device_behind_a_descriptor_is_no_mountpoint():
    with open("/dev/null") as device, pytest.raises(NotADirectoryError):  # noqa: PTH123
        settings("-M", f"/dev/fd/{device.fileno()}")


@pytest.mark.parametrize("path", ["a", "/a/../b", ""])
def test_a_virtual_mountpoint_is_an_absolute_path(tmp_path, path):
    if path == "":
        assert settings("-M", tmp_path, "--virtual-mountpoint=").virtual_mountpoint == "/"
        return
    with pytest.raises(ConfigError, match="an absolute path"):
        settings("-M", tmp_path, "-m", path)


def test_a_relative_path_to_fetch_first_is_refused(tmp_path, config):
    (tmp_path / "list").write_text("/good\nusr/bin\n")

    with pytest.raises(ConfigError, match="service mount error: invalid prefetch file list"):
        settings("-M", tmp_path, "-B", "b", "-C", config, "--prefetch-files", tmp_path / "list")


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_list_that_cannot_be_read_is_refused(tmp_path, config, name):
    with pytest.raises(ConfigError, match="the prefetch-files arg is not a file path"):
        settings("-M", tmp_path, "-B", "b", "-C", config, "--prefetch-files", tmp_path / name)


def test_a_listed_path_need_not_be_utf_8(tmp_path, config):
    (tmp_path / "list").write_bytes(b"/\xff\n")

    found = settings("-M", tmp_path, "-B", "b", "-C", config, "--prefetch-files", tmp_path / "list")

    assert found.prefetch_files == ("/\udcff",)
