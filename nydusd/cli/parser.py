"""A command line against a table of options, in the manner of clap 4.

Clients and their tests know its syntax and messages: `--opt value`, `--opt=value`, `-o value`,
`-ovalue`, no abbreviations, nothing given twice, options only after the subcommand. A parser of
our own because argparse speaks otherwise and takes longer to import than `--version` may take.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NoReturn

from nydusd.base.record import NamedTuple

SWITCHES: Final = {"-h": "help", "--help": "help", "-V": "version", "--version": "version"}


class UsageError(Exception):
    """A command line that cannot be understood; *text* is all that stderr is given."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Option(NamedTuple):
    """One option as it is written, checked and explained.

    A *flag* has no value. *check* tells what is wrong with a value, or "". *later* options belong
    to features that do not exist yet: understood, then refused.
    """

    name: str
    help: str
    short: str = ""
    flag: bool = False
    default: str | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[str], str] | None = None
    aliases: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    required: bool = False
    positional: bool = False
    later: bool = False

    @property
    def usage(self) -> str:
        """How messages name it: `--config <config>`, `--upgrade`, `<DEVICE>`."""
        if self.positional:
            return f"<{self.name}>"
        return f"--{self.name}" if self.flag else f"--{self.name} <{self.name}>"


class Command(NamedTuple):
    """One subcommand ("" is the program alone) with its options."""

    name: str
    help: str
    options: tuple[Option, ...]
    later: bool = False


class Arguments(NamedTuple):
    """A command line that makes sense: which command, and the values of its options.

    *show* is "help", "version" or "". Options that were not given have their default.
    """

    command: Command
    values: Mapping[str, str | bool | None] = MappingProxyType({})
    given: frozenset[str] = frozenset()
    show: str = ""

    def text(self, name: str) -> str | None:
        """The value of option *name*; `None` when it was not given and has no default."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def flag(self, name: str) -> bool:
        """Whether the flag *name* was given."""
        return self.values.get(name) is True


class Program(NamedTuple):
    """A program's name and its commands, "" among them.

    A command line with a flag of *may_lack_required* needs none of the required options.
    """

    name: str
    commands: Mapping[str, Command]
    may_lack_required: tuple[str, ...] = ()

    def parse(self, arguments: Sequence[str]) -> Arguments:
        """What *arguments* (without the program's name) ask for, or a `UsageError`."""
        command = self.commands[""]
        rest = list(arguments)
        if rest and not rest[0].startswith("-"):
            if rest[0] == "help":
                return self._parse_help(rest[1:])
            if rest[0] not in self.commands or not rest[0]:
                raise usage_error(f"unrecognized subcommand '{rest[0]}'", self.usage(command))
            command = self.commands[rest.pop(0)]
        return _Parser(self, command).run(rest)

    def _parse_help(self, names: list[str]) -> Arguments:
        name = names[0] if names else ""
        if len(names) > 1 or name not in {*self.commands, "help"}:
            usage = self.usage(self.commands[""])
            raise usage_error(f"unrecognized subcommand '{names[-1]}'", usage)
        return Arguments(self.commands.get(name, self.commands[""]), show="help")

    def usage(self, command: Command) -> str:
        """The `Usage:` lines of *command*."""
        words = [self.name, command.name, "[OPTIONS]"]
        words += [option.usage for option in command.options if option.required]
        line = f"Usage: {' '.join(word for word in words if word)}"
        return line if command.name else f"{line}\n       {self.name} <COMMAND>"

    def help_text(self, command: Command) -> str:
        """What `--help` prints for *command*."""
        lines = [command.help, "", self.usage(command), ""]
        if not command.name:
            lines.append("Commands:")
            lines += [
                f"  {each.name:<10} {each.help}{_not_yet(each.later)}"
                for each in self.commands.values()
                if each.name
            ]
            lines += ["  help       Print this message or the help of a command", ""]
        lines.append("Options:")
        for option in command.options:
            lines += _explained(option)
        lines += ["  -h, --help", "          Print help"]
        if not command.name:
            lines += ["  -V, --version", "          Print version"]
        return "\n".join(lines)


def usage_error(text: str, usage: str = "") -> UsageError:
    """The usage error *text*, with *usage* where clap shows one."""
    between = f"\n\n{usage}" if usage else ""
    return UsageError(f"error: {text}{between}\n\nFor more information, try '--help'.")


def _explained(option: Option) -> tuple[str, str]:
    """The two lines that `--help` has for *option*."""
    short = "" if option.positional else f"-{option.short}, " if option.short else "    "
    details = f" [default: {option.default}]" if option.default else ""
    if option.choices:
        details += f" [possible values: {', '.join(option.choices)}]"
    return (
        f"  {short}{option.usage}",
        f"          {option.help}{_not_yet(option.later)}{details}",
    )


def _not_yet(later: bool) -> str:
    return " (not in this version yet)" if later else ""


class _Parser:
    """One pass over the words of a command line, then the rules between options."""

    def __init__(self, program: Program, command: Command) -> None:
        self._program = program
        self._command = command
        self._by_name: dict[str, Option] = {}
        for option in command.options:
            if option.positional:
                continue
            for name in (option.name, *option.aliases):
                self._by_name[f"--{name}"] = option
            if option.short:
                self._by_name[f"-{option.short}"] = option
        self._positional = [option for option in command.options if option.positional]
        self._values: dict[str, str | bool] = {}

    def run(self, words: list[str]) -> Arguments:
        only_positional = False
        while words:
            word = words.pop(0)
            if only_positional or not word.startswith("-") or word == "-":
                self._take_positional(word)
            elif word == "--":
                only_positional = True
            elif word in SWITCHES and (SWITCHES[word] == "help" or not self._command.name):
                return Arguments(self._command, show=SWITCHES[word])
            else:
                self._take_option(word, words)
        self._check_rules()
        values: dict[str, str | bool | None] = {
            option.name: self._values.get(option.name, option.default)
            for option in self._command.options
        }
        return Arguments(self._command, values, frozenset(self._values))

    def _take_positional(self, word: str) -> None:
        for option in self._positional:
            if option.name not in self._values:
                self._check_value(option, word)
                self._values[option.name] = word
                return
        if not self._command.name and word in self._program.commands:
            given = [
                option.usage for option in self._command.options if option.name in self._values
            ]
            text = f"the subcommand '{word}' cannot be used with"
            if len(given) == 1:
                self._refuse(f"{text} '{given[0]}'")
            self._refuse(f"{text}:" + "".join(f"\n  {usage}" for usage in given))
        self._refuse(f"unexpected argument '{word}' found")

    def _take_option(self, word: str, words: list[str]) -> None:
        if word.startswith("--"):
            name, equals, attached = word.partition("=")
        else:  # -o, -ovalue, -o=value
            name, attached = word[:2], word[2:]
            equals = attached[:1]
            attached = attached.removeprefix("=")
        option = self._by_name.get(name)
        if option is None:
            self._refuse_unknown(name)
        if option.name in self._values:
            self._refuse(f"the argument '{option.usage}' cannot be used multiple times")
        if option.flag:
            if equals:
                self._refuse(
                    f"unexpected value '{attached}' for '{option.usage}' found;"
                    " no more were expected"
                )
            self._values[option.name] = True
            return
        if not equals:
            if not words or (words[0].startswith("-") and words[0] != "-"):
                raise usage_error(f"a value is required for '{option.usage}' but none was supplied")
            attached = words.pop(0)
        self._check_value(option, attached)
        self._values[option.name] = attached

    def _check_value(self, option: Option, value: str) -> None:
        text = f"invalid value '{value}' for '{option.usage}'"
        if option.choices and value not in option.choices:
            raise usage_error(f"{text}\n  [possible values: {', '.join(option.choices)}]")
        if option.check is not None and (problem := option.check(value)):
            raise usage_error(f"{text}: {problem}")

    def _check_rules(self) -> None:
        by_name = {option.name: option for option in self._command.options}
        given = [by_name[name] for name in self._values]
        for option in given:
            for other in option.conflicts:
                if other in self._values:
                    self._refuse(
                        f"the argument '{option.usage}' cannot be used with"
                        f" '{by_name[other].usage}'"
                    )
        missing = [name for option in given for name in option.requires]
        if not any(flag in self._values for flag in self._program.may_lack_required):
            missing = [each.name for each in self._command.options if each.required] + missing
        lacking = [
            by_name[name].usage for name in dict.fromkeys(missing) if name not in self._values
        ]
        if lacking:
            self._refuse(
                "the following required arguments were not provided:"
                + "".join(f"\n  {usage}" for usage in lacking)
            )

    def _refuse_unknown(self, name: str) -> NoReturn:
        from difflib import get_close_matches  # only for somebody who mistyped

        known = [f"--{option.name}" for option in self._command.options if not option.positional]
        near = get_close_matches(name, known, n=1, cutoff=0.7) if len(name) <= 64 else []
        tip = f"\n\n  tip: a similar argument exists: '{near[0]}'" if near else ""
        self._refuse(f"unexpected argument '{name}' found{tip}")

    def _refuse(self, text: str) -> NoReturn:
        raise usage_error(text, self._program.usage(self._command))
