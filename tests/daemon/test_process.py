import resource
import subprocess
import sys

import pytest

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
