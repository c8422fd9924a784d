import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nydusd.cli.nydus_image import main
from tests.build.golden_trees import TREES


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    TREES["mixed"](place)
    return place


@pytest.fixture(autouse=True)
def own_log(monkeypatch):
    """The command sets up the process's log; a test's process keeps its own."""
    from nydusd.base import log

    monkeypatch.setattr(log, "set_up", lambda *_: None)


def create(source: Path, *words: str) -> int:
    folder = source.parent
    places = ["-B", str(folder / "boot"), "-b", str(folder / "blob")]
    return main(["create", *places, *words, str(source)])


def test_create_and_check_an_image(source, capsys):
    assert create(source) == 0

    assert main(["check", str(source.parent / "boot")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("RAFS filesystem metadata is valid, referenced data blobs: \n\t 0: ")
    assert "features: aligned cap_toc" in out


def test_the_result_is_written_as_json(source):
    result = source.parent / "result.json"

    assert create(source, "-J", str(result)) == 0

    written = json.loads(result.read_text())
    assert written["bootstrap"] == str(source.parent / "boot")
    assert len(written["blobs"]) == 1
    assert written["trace"]["registered_events"]["blob_uncompressed_size"] > 0


def test_options_of_logging_may_stand_before_the_command(source):
    folder = source.parent
    places = ["-B", str(folder / "boot"), "-b", str(folder / "blob")]

    assert main(["-l", "warn", "create", *places, str(source)]) == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["create", "source"], "--bootstrap <bootstrap>"),
        (["create", "-D", "x"], "<SOURCE>"),
        (["create", "-B", "x", "-b", "y", "s", "--compressor", "gzip"], "invalid value 'gzip'"),
        (["create", "-B", "x", "--blob-inline-meta", "-b", "y", "s"], "cannot be used with"),
        (["check"], "<BOOTSTRAP>"),
        (["check", "x", "-B", "y"], "cannot be used with"),
        (["chekc"], "unrecognized subcommand"),
    ],
    ids=str,
)
def test_a_command_line_that_makes_no_sense_is_a_usage_error(words, text, capsys):
    assert main(words) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["merge", "a", "b"], "nydus-image merge is not in this version yet"),
        (["create", "-D", "x", "-t", "targz-ref", "s"], "--type targz-ref is not in this version"),
        (["create", "-D", "x", "--encrypt", "s"], "--encrypt is not in this version yet"),
        (["create", "-D", "x", "--batch-size", "0x1000", "s"], "--batch-size is not in this"),
        (["check", "-C", "x", "y"], "--config is not in this version yet"),
    ],
    ids=str,
)
def test_what_comes_later_is_refused_by_name(words, text, capsys):
    assert main(words) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--chunk-size", "1001"], "must be a power of two"),
        (["--chunk-size", "many"], "no hexadecimal number"),
        (["-v", "5", "--features", "blob-toc"], "a feature of v6 only"),
        (["--chunk-dict", "boltdb=x"], "only bootstraps can be one"),
        (["--blob-id", "x" * 65], "at most 64 bytes"),
        (["--parent-bootstrap", "/nonexistent"], "No such file"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(source, words, text, capsys):
    assert create(source, *words) == 1
    assert text in capsys.readouterr().err


def test_a_source_that_is_no_directory_is_refused(tmp_path, capsys):
    assert create(tmp_path / "nothing") == 1
    assert "no such source" in capsys.readouterr().err


def test_check_names_every_fault_in_a_line(source, capsys):
    assert create(source, "-v", "5") == 0
    boot = source.parent / "boot"
    data = bytearray(boot.read_bytes())
    data[-2000:] = bytes(2000)
    boot.write_bytes(data)

    assert main(["check", str(boot)]) == 1

    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("Error: /") for line in lines)


def test_the_version_is_told_as_clients_parse_it(capsys):
    assert main(["--version"]) == 0
    assert "Version: \t" in capsys.readouterr().out


def test_patterns_come_from_standard_input(source):
    script = "import sys; from nydusd.cli.nydus_image import main; sys.exit(main(sys.argv[1:]))"
    folder = source.parent
    words = ["create", "-B", folder / "boot", "-b", folder / "blob", "--prefetch-policy", "fs"]

    done = subprocess.run(
        [sys.executable, "-c", script, *words, source],
        input=b"/file-70000\nnot absolute\n",
        capture_output=True,
    )

    assert done.returncode == 0
    assert b"'not absolute' is not an absolute path: ignored" in done.stderr


def test_progress_shows_on_a_terminal_only(source):
    script = (
        "import sys; from nydusd.cli import progress; progress.INTERVAL_S = 0.001;"
        "from nydusd.cli.nydus_image import main; sys.exit(main(sys.argv[1:]))"
    )
    (source / "large").write_bytes(os.urandom(30 << 20))
    folder = source.parent
    words = ["create", "-l", "error", "-B", folder / "boot", "-b", folder / "blob", source]
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", script, *words], stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    assert b"MiB/s" in shown

    piped = subprocess.run([sys.executable, "-c", script, *words], capture_output=True)
    assert piped.stderr == b""


def read_bytes(pid: int) -> int:
    """What the process *pid* has read so far, from wherever it came."""
    return int(Path(f"/proc/{pid}/io").read_text().split()[1])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_packing_and_leaves_nothing(tmp_path, number, code):
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree" / "large").open("wb") as file:
        file.truncate(8 << 30)  # some seconds of work
    out = tmp_path / "out"
    out.mkdir()
    words = ["create", "-B", str(out / "boot"), "-b", str(out / "blob"), str(tmp_path / "tree")]
    packer = subprocess.Popen([sys.executable, "-m", "nydusd.cli.nydus_image", *words])
    while read_bytes(packer.pid) < 100 << 20 and packer.poll() is None:  # it packs by then
        os.sched_yield()

    packer.send_signal(number)

    assert packer.wait(60) == code
    assert not list(out.iterdir())
