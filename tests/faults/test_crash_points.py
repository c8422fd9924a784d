"""The cache write path, killed at every call or cut off from power: nothing wrong is served."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS
from tests.faults.tracer import SUPPORTED

ROOT = Path(__file__).resolve().parents[2]
# 1 and some thousand in the long form (tox -e crash).
STRIDE = int(os.environ.get("NYDUSD_CRASH_STRIDE", "4"))
STATES = int(os.environ.get("NYDUSD_CRASH_STATES", "30"))
POINTS_MIN = 200
LIMIT_S = 240 if STRIDE > 1 else 3600

pytestmark = [
    pytest.mark.skipif(not SUPPORTED, reason="the tracer knows the system calls of x86-64 alone"),
    pytest.mark.timeout(LIMIT_S * 4),
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: thousands of syncs wait for a disk otherwise."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path / "cache"
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="nydusd-crash-") as path:
        yield Path(path) / "cache"


def run(module: str, *arguments: object) -> dict:
    """What the program *module* prints, decoded; it forks, so it has a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{module}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        timeout=LIMIT_S * 4,
        check=False,
    )
    if b"Operation not permitted" in done.stderr:
        pytest.skip("ptrace is not allowed here")
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return json.loads(done.stdout)


def test_a_process_killed_at_any_call_leaves_nothing_wrong(folder):
    result = run("kills", folder, STRIDE)
    print(result["points"])
    assert result["wrong"] == []
    assert set(result["points"]) == set(SCENARIOS)
    assert sum(result["points"].values()) >= POINTS_MIN


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_power_cut_at_any_moment_leaves_nothing_wrong(folder, scenario):
    result = run("power", folder, scenario, STATES)
    assert result["wrong"] == []
    assert result["states"] == STATES


def test_without_the_record_a_power_cut_would_be_served(folder):
    """That the states of the disk are such that something can be wrong with them."""
    result = run("power", folder, "v5-shared-pages", 100, "--without-record")
    assert any("is wrong" in line for line in result["wrong"])
