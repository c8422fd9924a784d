"""The scripts and the tour of README.md do what they say, on this machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.distribution import PROGRAM
from tests.servers.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "nydusd": "nydusd.cli.nydusd",
    "nydus-image": "nydusd.cli.nydus_image",
    "nydusctl": "nydusd.cli.nydusctl",
}
WAIT_FOR_MOUNT = """
tries=0
until mountpoint -q {mount}; do
    tries=$((tries + 1))
    [ "$tries" -lt 400 ] || exit 1
    sleep 0.05
done
"""

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.timeout(180)]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with nydusd and nydus-image of this tree, run by this interpreter."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, module in PROGRAMS.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m {module} "$@"\n')
        script.chmod(0o755)
    return folder


def run(command: list[str], programs: Path) -> subprocess.CompletedProcess[str]:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    settings = os.environ | {"NYDUSD_PROGRAMS": str(programs), "PATH": path}
    return subprocess.run(
        command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False
    )


def test_the_first_mount_packs_mounts_reads_and_leaves_nothing(programs, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))

    result = run(["sh", "examples/first-mount.sh"], programs)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "hello from a lazily loaded image" in result.stdout
    assert "every file reads back equal" in result.stdout
    assert list(temporary.iterdir()) == []
    assert os.fsencode(temporary) not in Path("/proc/mounts").read_bytes()


def test_the_first_mount_takes_a_directory(programs):
    result = run(["sh", "examples/first-mount.sh", "docs"], programs)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "every file reads back equal" in result.stdout


@pytest.mark.skipif(
    PROGRAM is None, reason="needs docker-registry (Debian package docker-registry)"
)
def test_an_image_is_pushed_to_a_registry_and_mounted_from_there(programs, monkeypatch):
    monkeypatch.setenv("REGISTRY_PORT", str(free_port()))

    result = run(["sh", "examples/registry-mount.sh"], programs)

    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("every file reads back equal") == 2


def test_the_tour_of_the_readme_can_be_followed(programs, tmp_path):
    text = (ROOT / "README.md").read_text()
    tour = text.split("## A tour of five minutes", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```(sh|toml)\n(.*?)^```$", tour, re.M | re.S)
    folder = tmp_path / "tour"
    # A daemon that a failure leaves behind would hold the pipe open that is read here.
    script = ["set -eu", "trap 'kill $(jobs -p) 2>/dev/null || :' EXIT"]
    for language, block in blocks:
        if language == "toml":
            script.append(f"cat >/tmp/tour/nydusd.toml <<'END'\n{block}END")
        elif "activate" not in block:
            script.append(block)
        if block.rstrip().endswith("&"):
            script.append(WAIT_FOR_MOUNT.format(mount="/tmp/tour/mount"))
    script.append("wait")

    result = run(["sh", "-c", "\n".join(script).replace("/tmp/tour", str(folder))], programs)

    assert result.returncode == 0, result.stdout + result.stderr
    assert (ROOT / "docs/architecture.md").read_text() in result.stdout
    assert not os.path.ismount(folder / "mount")
