"""The command as a process: what it prints where, and with which code it ends."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.config.test_load import V1, changed


def nydusd(*words, **environ):
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "nydusd.cli.nydusd", *map(str, words)],
        capture_output=True,
        timeout=30,
        env={**os.environ, **environ},
    )


def last_line(result):
    return result.stderr.decode().splitlines()[-1]


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version_is_printed_as_clients_parse_it(word):
    result = nydusd(word)
    text = result.stdout.decode()

    assert result.returncode == 0
    assert result.stderr == b""
    assert text.startswith("nydusd \rVersion: \t")
    assert [line.partition(":")[0] for line in text.split("\n")] == [
        "nydusd \rVersion",
        "Git Commit",
        "Build Time",
        "Profile",
        "Rustc",
        "",
        "",
    ]
    assert re.search(r"Git Commit:\s*(.+)", text)[1].strip()
    assert re.search(r"\nProfile: \t(release|debug)\nRustc: \t\t\S", text)


def test_help_goes_to_stdout():
    result = nydusd("help")

    assert result.returncode == 0
    assert b"Usage: nydusd [OPTIONS]" in result.stdout
    assert result.stderr == b""


def test_a_usage_error_goes_to_stderr_with_code_2():
    result = nydusd("fuse", "--backend-source", "x")

    assert result.returncode == 2
    assert result.stdout == b""
    assert result.stderr.startswith(b"error: unexpected argument '--backend-source' found\n")


def test_an_argument_that_is_not_utf_8_is_no_reason_to_crash():
    result = nydusd("\udcff")

    assert result.returncode == 2
    assert b"\\udcff" in result.stderr


def test_a_feature_to_come_is_refused_by_name(tmp_path):
    result = nydusd("-M", tmp_path, "--dedup-db", tmp_path / "s")

    assert result.returncode == 1
    assert last_line(result) == (
        'Error: Custom { kind: Unsupported, error: "--dedup-db is not in this version yet" }'
    )


def test_a_missing_mountpoint_ends_with_the_words_of_the_reference(tmp_path):
    result = nydusd("-M", tmp_path / "missing", "--rlimit-nofile", 0)

    assert result.returncode == 1
    assert last_line(result) == (
        'Error: Os { code: 2, kind: NotFound, message: "No such file or directory" }'
    )
    assert b"INFO Program Version: " in result.stderr.splitlines()[0]


def test_a_bad_rotation_size_says_only_that():
    result = nydusd("-M", "/", "--log-rotation-size", "x")

    assert result.returncode == 1
    assert result.stderr.decode() == (
        'Error: Os { code: 22, kind: InvalidInput, message: "Invalid argument" }\n'
    )


def test_a_bad_limit_of_open_files_is_named():
    result = nydusd("-M", "/", "--rlimit-nofile", "many")

    assert result.returncode == 1
    assert last_line(result) == (
        'Error: Custom { kind: InvalidInput, error: "invalid value for option `rlimit-nofile`" }'
    )


def test_a_log_file_takes_all_lines_and_the_error_stays_on_stderr(tmp_path):
    (tmp_path / "bad").write_text("{")
    result = nydusd(
        *("-M", tmp_path, "-B", "b", "-C", tmp_path / "bad", "-L", tmp_path / "new" / "n.log"),
        *("--rlimit-nofile", 0),
    )
    first, *others = (tmp_path / "new" / "n.log").read_text().splitlines()

    assert result.returncode == 1
    assert re.search(
        r'INFO Program Version: \S+, Git Commit: "\w+", Build Time: ".+", '
        r'Profile: "\w+", Rustc Version: ".+"$',
        first,
    )
    assert "Failed to load config: failed to parse configuration information" in others[-1]
    assert len(result.stderr.splitlines()) == 1
    assert last_line(result).startswith("Error: Custom { kind: InvalidInput, error: ")


def test_the_log_level_of_the_environment_wins(tmp_path):
    result = nydusd(
        "-M", tmp_path / "missing", "-l", "info", "--rlimit-nofile", 0, RUST_LOG="error"
    )

    assert b"INFO" not in result.stderr
    assert b"ERROR" in result.stderr


def test_a_good_configuration_passes_the_check(tmp_path):
    (tmp_path / "c").write_text(json.dumps(V1))

    result = nydusd("--check-config", "-C", tmp_path / "c")

    assert result.returncode == 0
    assert result.stdout.decode() == f"{tmp_path}/c: version 1 JSON\n"


def test_the_check_tells_everything_at_once(tmp_path):
    text = changed(V1, "mode", "x").replace('"work_dir"', '"work_dri"').replace("blobs", "")
    (tmp_path / "c").write_text(text.replace('"blobcache"', '"disk"'))

    result = nydusd("fuse", "--check-config", "-C", tmp_path / "c", "-B", tmp_path / "none")
    lines = result.stdout.decode().splitlines()

    assert result.returncode == 1
    assert [line.partition(":")[0] for line in lines] == ["error", "error", "error"]
    assert "No such file or directory" in lines[-1]


def test_a_bootstrap_is_checked_together_with_the_configuration(tmp_path, reference_images):
    (tmp_path / "c").write_text(changed(V1, "digest_validate", True))

    result = nydusd(
        "--check-config", "-C", tmp_path / "c", "-B", reference_images / "v6-tiny" / "bootstrap"
    )

    assert result.returncode == 1
    assert b"Rafs v6 doesn't support integrity validation yet" in result.stdout


def test_a_closed_stdout_is_no_traceback():
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run(
        [sys.executable, "-m", "nydusd.cli.nydusd", "--version"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        timeout=30,
    )
    os.close(write_end)

    assert result.returncode == 1
    assert b"Traceback" not in result.stderr


def test_an_interrupt_during_the_start_ends_the_process_without_an_exception(tmp_path):
    config = tmp_path / "config"
    os.mkfifo(config)
    (tmp_path / "mnt").mkdir()
    words = ["--mountpoint", tmp_path / "mnt", "--bootstrap", __file__, "--config", config]
    with subprocess.Popen(
        [sys.executable, "-m", "nydusd.cli.nydusd", *words, "--rlimit-nofile", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        with config.open("wb"):  # opens when the daemon has opened it, and lets it wait for data
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == -signal.SIGINT
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_a_stdout_that_takes_nothing_is_no_traceback(word):
    command = f'exec "$0" -m nydusd.cli.nydusd {word}'
    for redirection, code, words in ((">&-", 0, b""), (">/dev/full", 1, b"No space left")):
        result = subprocess.run(
            ["/bin/sh", "-c", f"{command} {redirection}", sys.executable],
            stderr=subprocess.PIPE,
            timeout=30,
        )
        assert result.returncode == code
        assert b"Traceback" not in result.stderr
        assert words in result.stderr


def test_no_file_gets_the_descriptor_of_a_closed_standard_stream(tmp_path):
    script = (
        "import os, sys\n"
        "from nydusd.cli.command import run_command\n"
        "def look(words):\n"
        "    links = [os.readlink(f'/proc/self/fd/{number}') for number in range(3)]\n"
        "    open(sys.argv[1], 'w').write(' '.join(links))\n"
        "    return 0\n"
        "sys.exit(run_command([], 'x', look))\n"
    )
    found = tmp_path / "found"

    subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" "$2" <&- >&- 2>&-', sys.executable, script, found],
        check=True,
        timeout=30,
    )

    assert found.read_text() == "/dev/null /dev/null /dev/null"
