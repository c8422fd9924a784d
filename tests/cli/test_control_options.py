import pytest

from nydusd.cli.control_options import parse
from nydusd.cli.parser import UsageError

SOCK = ["-S", "/s"]


def test_what_stands_before_the_command_is_for_all():
    line = parse(["--sock=/s", "-r", "metrics", "cache", "-I", "2"])

    assert (line.sock, line.raw) == ("/s", True)
    assert line.arguments.text("category") == "cache"
    assert line.arguments.text("interval") == "2"


def test_raw_may_stand_behind_the_command_too():
    assert parse([*SOCK, "info", "--raw"]).raw
    assert not parse([*SOCK, "info"]).raw


def test_without_a_command_the_help_is_shown():
    assert "Commands:" in parse(SOCK).show
    assert "Commands:" in parse(["--help"]).show
    assert "--progress" in parse(["prefetch", "--help"]).show
    assert parse(["-V"]).show == "version"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["info"], "--sock <sock>"),
        ([*SOCK, "nope"], "unrecognized subcommand 'nope'"),
        ([*SOCK, "metrics"], "<category>"),
        ([*SOCK, "metrics", "nope"], "[possible values: backend, cache, fsstats]"),
        ([*SOCK, "metrics", "cache", "-I", "0"], "a number of seconds is needed"),
        ([*SOCK, "set", "colour", "red"], "[possible values: log-level]"),
        ([*SOCK, "set", "log-level"], "<VALUE>"),
        ([*SOCK, "mount", "-s", "b"], "--config <config>"),
        ([*SOCK, "mount", "-s", "b", "-c", "c", "-m", "/", "-t", "erofs"], "passthrough_fs"),
        ([*SOCK, "umount"], "--mountpoint <mountpoint>"),
        ([*SOCK, "info", "more"], "unexpected argument 'more'"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(words, text):
    with pytest.raises(UsageError) as raised:
        parse(words)
    assert text in raised.value.text
