"""The options of nydusctl: what stands before the command, and each command's own.

Names are those of nydus (nydus: src/bin/nydusctl/main.rs). `umount` takes `--mountpoint` as well.
"""

from typing import Final

from nydusd.base.record import NamedTuple
from nydusd.cli.parser import Arguments, Command, Option, Program, usage_error

ABOUT: Final = "A client to query and configure the nydusd daemon"


def check_seconds(value: str) -> str:
    """What is wrong with an interval."""
    if value.isascii() and value.isdecimal() and 0 < int(value) <= 86400:
        return ""
    return "a number of seconds is needed"


RAW: Final = Option("raw", "Print plain JSON", "r", flag=True)
INTERVAL: Final = Option("interval", "Look again after so many seconds", "I", check=check_seconds)
COMMANDS: Final = {
    command.name: command
    for command in (
        Command("", ABOUT, (Option("sock", "Control socket of the daemon", "S"), RAW)),
        Command("info", "Tell what the daemon is and serves", (RAW,)),
        Command(
            "set",
            "Change a parameter of the daemon",
            (
                RAW,
                Option("KIND", "", positional=True, required=True, choices=("log-level",)),
                Option("VALUE", "", positional=True, required=True),
            ),
        ),
        Command(
            "metrics",
            "Show counters of the backend, the cache or the file system",
            (
                RAW,
                INTERVAL,
                Option(
                    "category",
                    "",
                    positional=True,
                    required=True,
                    choices=("backend", "cache", "fsstats"),
                ),
            ),
        ),
        Command(
            "mount",
            "Serve one more image",
            (
                RAW,
                Option("source", "Bootstrap of the image", "s", required=True),
                Option("config", "Configuration file of the image", "c", required=True),
                Option("mountpoint", "Where it appears", "m", required=True),
                Option(
                    "type",
                    "Kind of file system",
                    "t",
                    required=True,
                    choices=("rafs", "passthrough_fs"),
                ),
            ),
        ),
        Command(
            "umount",
            "Take an image away",
            (RAW, Option("mountpoint", "Where it appears", "m", required=True)),
        ),
        Command(
            "top",
            "Show what the mounts do, again and again",
            (
                RAW,
                INTERVAL,
                Option("rounds", "End after so many looks", "n", check=check_seconds),
            ),
        ),
        Command(
            "prefetch",
            "Show how far the prefetch of each mount has come",
            (RAW, Option("progress", "Look again until all are done", flag=True)),
        ),
        Command(
            "cache",
            "Show what is on local disk of each blob",
            (RAW, Option("mountpoint", "Only the blobs of this mount", "m")),
        ),
    )
}
NYDUSCTL: Final = Program("nydusctl", COMMANDS)


class CommandLine(NamedTuple):
    """A command line that makes sense; with *show* there is only something to print."""

    sock: str
    raw: bool
    arguments: Arguments
    show: str = ""  # "version", or a help text


def parse(words: list[str]) -> CommandLine:
    """What *words* (without the program's name) ask for; `UsageError`."""
    before, rest = split_at_command(words)
    head = NYDUSCTL.parse(before)
    if head.show:
        text = "version" if head.show == "version" else NYDUSCTL.help_text(head.command)
        return CommandLine("", False, head, text)
    if rest:
        arguments = NYDUSCTL.parse(rest)
        if arguments.show:
            return CommandLine("", False, arguments, NYDUSCTL.help_text(arguments.command))
    sock = head.text("sock")
    if sock is None:
        raise usage_error(
            "The following required arguments were not provided:\n  --sock <sock>",
            "Usage: nydusctl --sock <sock>",
        )
    if not rest:
        return CommandLine(sock, False, head, NYDUSCTL.help_text(head.command))
    return CommandLine(sock, head.flag("raw") or arguments.flag("raw"), arguments)


def split_at_command(words: list[str]) -> tuple[list[str], list[str]]:
    """*words* before the command, and the command with all behind it."""
    takes_value = False
    for at, word in enumerate(words):
        if takes_value:
            takes_value = False
        elif word in ("-S", "--sock"):
            takes_value = True
        elif not word.startswith("-"):
            return words[:at], words[at:]
    return words, []
