"""The search for secrets finds one wherever the program could show it, and fails the run then."""

import base64
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cli.backend_examples import EXAMPLES
from tests.disclosure import MARK, Search, cipher_key, login, secret
from tests.faults.matrix import MARKERS
from tests.servers import distribution, registry

ROOT = Path(__file__).parents[1]
# What a leaking program would do, each a test of its own.
LEAKS = """
import logging, subprocess, sys
from pathlib import Path
from nydusd.base.errors import BackendError
from tests.disclosure import login, secret
from tests.system.control import ask
from tests.system.daemon import Daemon

def test_log_line(caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("nydusd").debug("sent %s", login("user", "x"))

def test_exception_of_a_log_line(caplog):
    try:
        raise ValueError(secret("x"))
    except ValueError:
        logging.getLogger("nydusd").exception("went wrong")

def test_error():
    BackendError("GET /?sig=" + secret("x"))

def test_output_of_a_command():
    subprocess.run([sys.executable, "-c", "print('UNSPO' 'KEN')"], capture_output=True)

def test_output_of_a_daemon(tmp_path):
    daemon = Daemon([sys.executable, "-c", "print('UNSPO' 'KEN')"], tmp_path)
    daemon.launch()
    daemon.wait()

def test_reply_of_the_api(tmp_path):
    import socket, threading
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    def serve():
        sock, _ = listener.accept()
        with sock:
            sock.recv(9999)
            body = login("user", "x").encode()
            sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    thread = threading.Thread(target=serve)
    thread.start()
    ask(tmp_path / "s", "GET", "/")
    thread.join()
    listener.close()

def test_file(tmp_path):
    (tmp_path / "nydusd.log").write_text(secret("in a file"))

def test_nothing(tmp_path):
    (tmp_path / "config.json").write_text(secret("it belongs here"))
"""


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_a_secret_is_found_in_what_is_made_of_it(before, after):
    text = os.urandom(before) + secret("x").encode() + os.urandom(after)
    for made in (text, base64.b64encode(text), base64.urlsafe_b64encode(text), text.hex().encode()):
        search = Search()
        search.look("somewhere", b"..." + made + b"...")
        assert len(search.take()) == 1
        assert not search.take()


def test_a_secret_that_somebody_else_has_made_is_found_once_it_is_known():
    search = Search()
    search.look("log", "AKIA123456789")
    assert not search.take()
    search.learn("AKIA123456789")
    search.look("log", "AKIA123456789")
    assert search.take()


def test_what_holds_no_secret_is_not_taken_for_one():
    search = Search()
    search.look("bytes", os.urandom(1 << 20))
    search.look("text", "Bearer *** UNSPOKE")
    assert not search.take()
    assert search.searched == 2


@pytest.mark.parametrize(
    "value",
    [
        *MARKERS,
        registry.USER,
        distribution.AUTH,
        distribution.PASSWORD,
        login("user", "any"),
        cipher_key("any"),
        *re.findall(r'(?:secret|auth) = "(.+)"', "".join(each.backend for each in EXAMPLES)),
    ],
)
def test_the_secrets_of_the_tests_have_the_shape_that_is_searched_for(value):
    search = Search()
    search.look("", value)
    assert search.take()


def run(*options):
    """Exit code and output of a run of the leaks, which leaves no files where ours are searched."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "test_leaks.py")
        file.write_text(LEAKS)
        shown = Path(folder, "shown")
        with shown.open("wb") as output:
            ended = subprocess.run(
                [
                    *(sys.executable, "-m", "pytest", "-q", "--tb=line", "-c", "/dev/null"),
                    *("-p", "tests.conftest", "-p", "no:cacheprovider", "--import-mode=importlib"),
                    *(f"--rootdir={folder}", f"--basetemp={folder}/made", *options, str(file)),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                timeout=50,
                check=False,
            )
        return ended.returncode, shown.read_text()


def test_a_program_that_leaks_fails_the_run_wherever_it_leaks():
    code, shown = run()

    assert sorted(re.findall(r"ERROR \S+::test_(\w+)", shown)) == [
        "error",
        "exception_of_a_log_line",
        "log_line",
        "output_of_a_command",
        "output_of_a_daemon",
        "reply_of_the_api",
    ], shown
    assert re.search(rf"DISCLOSED \S*nydusd\.log: .*{MARK}", shown)
    assert "config.json" not in shown
    assert code == 1


def test_a_file_alone_fails_the_run():
    assert run("-k", "test_file")[0] == 1
    assert run("-k", "test_nothing")[0] == 0
