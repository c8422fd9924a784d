"""nydusd's command line: what is understood, and the words for what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.cli.options import NYDUSD, later_features
from nydusd.cli.parser import UsageError

MOUNT = ["--mountpoint", "/mnt"]


def refused(*words):
    """The text of the usage error for *words*."""
    with pytest.raises(UsageError) as caught:
        NYDUSD.parse(words)
    assert caught.value.text.endswith("\n\nFor more information, try '--help'.")
    return caught.value.text


@pytest.mark.parametrize("command", [[], ["fuse"]])
def test_with_and_without_the_fuse_word_the_same_options_have_the_same_defaults(command):
    arguments = NYDUSD.parse([*command, *MOUNT])

    assert arguments.text("mountpoint") == "/mnt"
    assert arguments.text("fuse-threads") == "4"
    assert arguments.text("failover-policy") == "resend"
    assert arguments.text("log-level") == "info"
    assert arguments.text("log-rotation-size") == "0"
    assert arguments.text("rlimit-nofile") == "1000000"
    assert arguments.text("virtual-mountpoint") == "/"
    assert arguments.text("config") is None
    assert not arguments.flag("writable")
    assert arguments.given == {"mountpoint"}


def test_what_the_snapshotter_sends_is_understood():
    line = (
        "fuse --thread-num 8 --config c.json --bootstrap b --mountpoint m --apisock s"
        " --log-level warn --log-rotation-size 100 --log-file l/n.log"
        " --failover-policy flush"
    )
    arguments = NYDUSD.parse(line.split())

    assert arguments.text("fuse-threads") == "8"
    assert arguments.text("log-rotation-size") == "100"
    assert not later_features(arguments)


@pytest.mark.parametrize(
    "words",
    [
        ["--mountpoint", "/mnt"],
        ["--mountpoint=/mnt"],
        ["-M", "/mnt"],
        ["-M/mnt"],
        ["-M=/mnt"],
    ],
)
def test_a_value_may_be_written_in_five_ways(words):
    assert NYDUSD.parse(words).text("mountpoint") == "/mnt"


@pytest.mark.parametrize("word", ["-", "", "a=b", "/with space", "\udcff"])
def test_a_value_may_be_any_text_that_is_no_option(word):
    assert NYDUSD.parse([*MOUNT, "--config", word]).text("config") == word


def test_an_empty_value_can_be_given_with_an_equals_sign():
    assert NYDUSD.parse(["--mountpoint="]).text("mountpoint") == ""


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "",
            "error: the following required arguments were not provided:\n"
            "  --mountpoint <mountpoint>\n",
        ),
        ("foo", "error: unrecognized subcommand 'foo'\n"),
        ("help foo", "error: unrecognized subcommand 'foo'\n"),
        ("fuse --backend-source x", "error: unexpected argument '--backend-source' found\n"),
        ("fuse --hybrid-mode", "error: unexpected argument '--hybrid-mode' found\n"),
        ("fuse --version", "error: unexpected argument '--version' found\n"),
        ("fuse extra", "error: unexpected argument 'extra' found\n"),
        ("-M x -- -y", "error: unexpected argument '-y' found\n"),
        (
            "--conf a",
            "error: unexpected argument '--conf' found\n\n"
            "  tip: a similar argument exists: '--config'\n",
        ),
        (
            "fuse --fuse-threads 0",
            "error: invalid value '0' for '--fuse-threads <fuse-threads>':"
            " invalid thread number 0, valid range: [1-1024]\n",
        ),
        (
            "fuse --thread-num 1025",
            "error: invalid value '1025' for '--fuse-threads <fuse-threads>':"
            " invalid thread number 1025, valid range: [1-1024]\n",
        ),
        (
            "--fuse-threads=abc",
            "error: invalid value 'abc' for '--fuse-threads <fuse-threads>':"
            " invalid thread number configuration: abc\n",
        ),
        (
            "-l verbose",
            "error: invalid value 'verbose' for '--log-level <log-level>'\n"
            "  [possible values: trace, debug, info, warn, error]\n",
        ),
        ("-l INFO", "error: invalid value 'INFO' for '--log-level <log-level>'\n"),
        (
            "--failover-policy x",
            "error: invalid value 'x' for '--failover-policy <failover-policy>'\n"
            "  [possible values: none, resend, flush]\n",
        ),
        (
            "-M m -B b -s s",
            "error: the argument '--shared-dir <shared-dir>' cannot be used with"
            " '--bootstrap <bootstrap>'\n",
        ),
        (
            "-M m -C c -D d -B b",
            "error: the argument '--localfs-dir <localfs-dir>' cannot be used with"
            " '--config <config>'\n",
        ),
        (
            "-M m --id a",
            "error: the following required arguments were not provided:\n"
            "  --supervisor <supervisor>\n",
        ),
        (
            "-M m --prefetch-files f",
            "error: the following required arguments were not provided:\n"
            "  --bootstrap <bootstrap>\n",
        ),
        (
            "--check-config",
            "error: the following required arguments were not provided:\n  --config <config>\n",
        ),
        (
            "-M a -M b",
            "error: the argument '--mountpoint <mountpoint>' cannot be used multiple times\n",
        ),
        (
            "--thread-num 1 --fuse-threads 1",
            "error: the argument '--fuse-threads <fuse-threads>' cannot be used multiple times\n",
        ),
        ("--writable --writable", "error: the argument '--writable' cannot be used multiple"),
        ("--upgrade=1", "error: unexpected value '1' for '--upgrade' found; no more were"),
        (
            "-M",
            "error: a value is required for '--mountpoint <mountpoint>' but none was supplied\n",
        ),
        ("-M --config c", "error: a value is required for '--mountpoint <mountpoint>' but"),
        (
            "--apisock a --rlimit-nofile 5 fuse",
            "error: the subcommand 'fuse' cannot be used with:\n"
            "  --apisock <apisock>\n  --rlimit-nofile <rlimit-nofile>\n",
        ),
        (
            "virtiofs",
            "error: the following required arguments were not provided:\n  --sock <sock>\n",
        ),
        (
            "singleton --fscache-tag t",
            "error: the following required arguments were not provided:\n  --fscache <fscache>\n",
        ),
        ("nbd", "error: the following required arguments were not provided:\n  <DEVICE>\n"),
        ("nbd /dev/nbd0 two", "error: unexpected argument 'two' found\n"),
    ],
)
def test_a_wrong_command_line_is_answered_in_the_words_of_the_reference(line, text):
    assert refused(*line.split()).startswith(text)


def test_a_usage_line_names_the_command():
    assert "\n\nUsage: nydusd fuse [OPTIONS] --mountpoint <mountpoint>\n" in refused("fuse")
    assert "\n       nydusd <COMMAND>\n" in refused()


@pytest.mark.parametrize(
    ("line", "features"),
    [
        ("-M m", []),
        ("-M m --failover-policy none --writable", []),
        ("-M m -A s", []),
        ("-M m --id i --supervisor s --upgrade", []),
        ("-M m --shared-dir s", []),
        ("-M m --dedup-db d", ["--dedup-db"]),
        ("virtiofs --sock s", ["nydusd virtiofs"]),
        ("singleton", []),
        ("singleton -F d --fscache-tag t", []),
        ("uffd -S s", ["nydusd uffd"]),
        ("nbd /dev/nbd0 -B b -D d", ["nydusd nbd"]),
    ],
)
def test_features_to_come_are_named(line, features):
    arguments = NYDUSD.parse(line.split())

    assert sorted(later_features(arguments)) == sorted(features)


@pytest.mark.parametrize(
    "words", [["-h"], ["--help"], ["help"], ["help", "help"], ["-M", "x", "-h"]]
)
def test_help_is_asked_for_in_several_ways(words):
    arguments = NYDUSD.parse(words)

    assert arguments.show == "help"
    assert "Commands:" in NYDUSD.help_text(arguments.command)


@pytest.mark.parametrize("name", ["fuse", "virtiofs", "singleton", "uffd", "nbd"])
def test_every_command_explains_its_options(name):
    text = NYDUSD.help_text(NYDUSD.parse(["help", name]).command)

    assert NYDUSD.parse([name, "--help"]).show == "help"
    assert f"Usage: nydusd {name} [OPTIONS]" in text
    assert "--log-rotation-size <log-rotation-size>" in text
    assert "thread-num" not in text


def test_the_version_is_asked_for_at_the_top_only():
    assert NYDUSD.parse(["-V"]).show == NYDUSD.parse([*MOUNT, "--version"]).show == "version"


def test_a_check_of_the_configuration_needs_no_mountpoint():
    assert NYDUSD.parse(["--check-config", "-C", "c"]).flag("check-config")


WORDS = [
    "fuse",
    "help",
    "-M",
    "-Mx",
    "--config",
    "--config=",
    "-",
    "--",
    "",
    "-l",
    "--upgrade",
    "-h",
]


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=6))
def test_any_words_are_understood_or_refused(words):
    try:
        arguments = NYDUSD.parse(words)
    except UsageError:
        return
    assert arguments.show or arguments.text("mountpoint") is not None or arguments.command.name
