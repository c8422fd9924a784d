import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

LIMIT = """
import logging, resource, sys
logging.basicConfig(format="%(message)s")
from nydusd.daemon.process import raise_open_files_limit
raise_open_files_limit(int(sys.argv[1]))
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""

LOWERED = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, 512))\n" + LIMIT

END = """
import os, signal, threading
from nydusd.daemon.process import EndRequest
end = EndRequest()
end.install()
threading.Timer(0.2, lambda: {how}).start()
print(end.wait())
"""


CORE = """
import os, resource
from nydusd.daemon.process import forbid_core_dumps
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
forbid_core_dumps({"NYDUSD_ALLOW_CORE": "ALLOWED"})
print(*resource.getrlimit(resource.RLIMIT_CORE), hard, flush=True)
os.abort()
"""


def abort(folder, allowed):
    """Soft and hard limit of a process that aborts, its first hard limit, whether a core came."""
    reading, writing = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", f"import os; os.chdir({str(folder)!r})\n"
         + CORE.replace("ALLOWED", allowed)],
        {**os.environ, "PYTHONPATH": str(ROOT)},
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)],
    )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading) as pipe:
        soft, hard, first = (int(word) for word in pipe.read().split())
    status = os.waitpid(pid, 0)[1]
    assert os.WTERMSIG(status) == signal.SIGABRT
    return soft, hard, first, os.WCOREDUMP(status)


def test_no_core_with_secrets_is_written(tmp_path):
    soft, hard, first, dumped = abort(tmp_path, "")

    assert not dumped
    assert not list(tmp_path.iterdir())
    assert soft == (0 if hard == 0 else 1)
    assert hard == first


def test_a_core_is_written_where_it_was_allowed(tmp_path):
    soft, hard, _, dumped = abort(tmp_path, "1")

    assert soft == hard
    if hard != 0 and not Path("/proc/sys/kernel/core_pattern").read_text().startswith(("|", "/")):
        assert dumped
        assert list(tmp_path.iterdir())


def run(script, *args):
    done = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_the_limit_is_set_as_asked():
    assert run(LIMIT, "700").stdout.split() == ["700", "700"]


def test_zero_leaves_the_limit_alone():
    before = [str(n) for n in resource.getrlimit(resource.RLIMIT_NOFILE)]

    assert run(LIMIT, "0").stdout.split() == before


@pytest.mark.root
def test_a_limit_that_cannot_be_raised_is_a_warning():
    done = subprocess.run(
        [
            "setpriv",
            "--bounding-set=-sys_resource",
            "--inh-caps=-sys_resource",
            sys.executable,
            "-c",
            LOWERED,
            "1000",
        ],
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == ["512", "512"]
    assert "cannot raise rlimit-nofile to 1000" in done.stderr


@pytest.mark.root
def test_without_proc_the_limit_stays_as_it_is():
    hidden = 'mount -t tmpfs none /proc && exec "$0" -c "$1" 700'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden, sys.executable, LOWERED],
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == ["256", "512"], done.stderr
    assert "cannot raise rlimit-nofile" in done.stderr


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGINT)", "SIGINT"),
        ("signal.pthread_kill(threading.get_ident(), signal.SIGTERM)", "SIGTERM"),
        ("end.ask('unmounted')", "unmounted"),
    ],
)
def test_somebody_asks_for_the_end(how, reason):
    assert run(END.format(how=how)).stdout.strip() == reason
