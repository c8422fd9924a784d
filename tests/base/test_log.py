"""Lines, levels, files and rotation of the daemon's log."""

import errno
import gzip
import logging
import os
import re
import sys
import threading

import pytest

from nydusd.base import log

LINE = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} [+-]\d\d:\d\d\] (?P<level>[A-Z]+) (?P<rest>.*)"
)


@pytest.fixture
def logger(request, caplog):
    """The program's logger, put back as it was; `caplog` because warnings are meant here."""
    program = log.logger
    before = (program.handlers[:], program.level, program.propagate, logging.raiseExceptions)
    yield program
    for handler in program.handlers:
        if handler not in before[0]:
            handler.close()
    program.handlers[:], level, program.propagate, logging.raiseExceptions = before
    program.setLevel(level)


def lines_of(path):
    return path.read_text().splitlines()


def test_an_info_line_has_a_time_with_offset_a_level_and_the_text(logger, tmp_path):
    log.set_up("info", str(tmp_path / "a.log"), environ={})

    logger.info("Fuse daemon started!")

    found = LINE.fullmatch(lines_of(tmp_path / "a.log")[0])
    assert found["level"] == "INFO"
    assert found["rest"] == "Fuse daemon started!"


@pytest.mark.parametrize(
    ("level", "name"),
    [(log.TRACE, "TRACE"), (10, "DEBUG"), (30, "WARN"), (40, "ERROR"), (50, "ERROR")],
)
def test_other_levels_carry_the_source_position(logger, tmp_path, level, name):
    log.set_up("trace", str(tmp_path / "a.log"), environ={})

    logger.log(level, "text")

    found = LINE.fullmatch(lines_of(tmp_path / "a.log")[0])
    assert found["level"] == name
    assert re.fullmatch(r"\[(\S+/)?test_log\.py:\d+\] text", found["rest"])


def test_what_could_forge_a_line_is_escaped(logger, tmp_path):
    log.set_up("info", str(tmp_path / "a.log"), environ={})

    logger.info("name %s", "a\n[2026] ERROR \x1b[2J \u2028 \udcff\t")

    lines = lines_of(tmp_path / "a.log")
    assert len(lines) == 1
    assert lines[0].endswith(r"name a\n[2026] ERROR \x1b[2J \u2028 \udcff\t")


def test_a_traceback_follows_line_by_line_after_a_tab(logger, tmp_path):
    log.set_up("info", str(tmp_path / "a.log"), environ={})

    try:
        int("bad\nnews")
    except ValueError:
        logger.exception("failed")

    first, *others = lines_of(tmp_path / "a.log")
    assert LINE.fullmatch(first)
    assert others
    assert all(line.startswith("\t") for line in others)


def test_a_name_without_extension_gets_one_and_its_folder_is_made(logger, tmp_path):
    log.set_up("info", str(tmp_path / "new" / "folder" / "foo"), environ={})

    logger.info("text")

    assert (tmp_path / "new" / "folder" / "foo.log").exists()


def test_an_existing_file_is_appended_to(logger, tmp_path):
    (tmp_path / "a.txt").write_text("old\n")
    log.set_up("info", str(tmp_path / "a.txt"), environ={})

    logger.info("new")

    assert lines_of(tmp_path / "a.txt")[0] == "old"
    assert len(lines_of(tmp_path / "a.txt")) == 2


def test_stderr_has_colours_for_warnings_only(logger, capfd):
    log.set_up("info", environ={})

    logger.info("calm")
    logger.warning("odd")
    logger.error("bad")

    calm, odd, bad = capfd.readouterr().err.splitlines()
    assert "\x1b" not in calm
    assert "\x1b[38;5;208modd\x1b[0m" in odd
    assert "\x1b[38;5;196mbad\x1b[0m" in bad


@pytest.mark.parametrize(
    ("variable", "level"),
    [
        ("error", "error"),
        ("OFF", "off"),
        ("nydusd=debug", "debug"),
        ("warn,hyper=trace", "warn"),
        ("hyper=trace", "info"),
        ("loud", "info"),
        ("", "info"),
    ],
)
def test_the_environment_overrides_the_level(logger, tmp_path, variable, level):
    log.set_up("info", str(tmp_path / "a.log"), environ={"RUST_LOG": variable})

    assert log.get_level() == level


def test_the_level_changes_while_running(logger, tmp_path):
    log.set_up("info", str(tmp_path / "a.log"), environ={})

    log.set_level("error")
    logger.warning("not this")
    log.set_level("trace")
    logger.log(log.TRACE, "but this")

    assert len(lines_of(tmp_path / "a.log")) == 1
    with pytest.raises(ValueError, match="none of trace, debug"):
        log.set_level("INFO")


def test_a_full_file_is_renamed_and_compressed(logger, tmp_path):
    handler = log.set_up("info", str(tmp_path / "d" / "n.log"), 1, {})

    logger.info("first %s", "x" * 600_000)
    logger.info("second %s", "y" * 600_000)
    handler.close()

    assert len(lines_of(tmp_path / "d" / "n_rCURRENT.log")) == 1
    (archive,) = (tmp_path / "d").glob("*.gz")
    assert re.fullmatch(r"n_r\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.log\.gz", archive.name)
    with gzip.open(archive, "rt") as old:
        assert "first" in old.read()
    assert len(list((tmp_path / "d").iterdir())) == 2


def test_the_ten_newest_archives_are_kept(logger, tmp_path):
    for second in range(12):
        name = f"n_r2026-01-01_00-00-{second:02d}.log.gz"
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "m_r2026-01-01_00-00-00.log.gz").write_bytes(b"another daemon's")
    handler = log.LogFile(str(tmp_path / "n.log"), 100)

    handler.write(b"x" * 80)
    handler.write(b"x" * 80)
    handler.close()

    archives = sorted(tmp_path.glob("n_*.gz"))
    assert len(archives) == 10
    assert archives[0].name == "n_r2026-01-01_00-00-03.log.gz"
    assert (tmp_path / "m_r2026-01-01_00-00-00.log.gz").exists()


def test_two_rotations_in_a_second_lose_nothing(tmp_path):
    handler = log.LogFile(str(tmp_path / "n.log"), 10)

    for count in range(5):
        handler.write(b"line %d \n" % count)
    handler.close()

    handler = log.LogFile(str(tmp_path / "n.log"), 10)  # its first rotation finds leftovers
    handler.write(b"line 5 \n")
    handler.close()
    text = b"".join(
        gzip.decompress(each.read_bytes()) if each.suffix == ".gz" else each.read_bytes()
        for each in tmp_path.iterdir()
    )
    assert sorted(text.splitlines()) == [b"line %d " % count for count in range(6)]


def test_a_disk_that_fails_loses_lines_and_nothing_else(logger, tmp_path):
    (tmp_path / "full.log").symlink_to("/dev/full")
    handler = log.set_up("info", str(tmp_path / "full.log"), environ={})

    logger.info("lost")

    assert handler.lost_lines == 1


def test_a_full_disk_at_the_start_sends_the_log_to_stderr(logger, monkeypatch, capfd):
    def no_space(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log.LogFile, "_open", no_space)

    log.set_up("info", "whatever.log", environ={})

    assert "No space left on device; logging to stderr" in capfd.readouterr().err


def test_a_file_that_cannot_be_made_is_an_error(logger, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        log.set_up("info", str(tmp_path / "file" / "a.log"), environ={})


def test_threads_do_not_mix_their_lines(logger, tmp_path):
    log.set_up("info", str(tmp_path / "a.log"), environ={})
    threads = [
        threading.Thread(target=lambda: [logger.info("x" * 500) for _ in range(200)])
        for _ in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    lines = lines_of(tmp_path / "a.log")
    assert len(lines) == 800
    assert all(LINE.fullmatch(line) and line.endswith("x" * 500) for line in lines)


def test_a_closed_stderr_is_no_reason_to_stop(logger, monkeypatch):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as closed:
        monkeypatch.setattr(sys, "__stderr__", closed)
        handler = log.set_up("info", environ={})

        logger.info("to nobody")

    assert handler.lost_lines == 1
