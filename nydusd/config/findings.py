"""What is wrong, or odd, in a configuration, collected so that all of it is told at once.

Everything quoted from a file is escaped and cut here: a finding is one printable line, whatever
was in the file, and shows no value of a key that holds a secret.
"""

from collections.abc import Iterable

MOST_FINDINGS = 50  # of each sort; a hostile file could have a hundred thousand unknown keys
MOST_SHOWN_CHARACTERS = 60
# Longer names are not compared with the known ones: difflib takes quadratic time.
MOST_COMPARED_CHARACTERS = 64

KINDS = {bool: "true/false", int: "a number", float: "a number with a point", str: "text"}


def printable(text: str) -> str:
    """*text* on one line: what is not printable is escaped, and a long one is cut."""
    cut = text[:MOST_SHOWN_CHARACTERS]
    if not cut.isprintable():
        cut = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in cut)
    return cut + ("…" if len(text) > MOST_SHOWN_CHARACTERS else "")


def shown(value: object, *, secret: bool = False) -> str:
    """What came, for a message: the kind of *value*, and itself where that is short and allowed."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    kind = KINDS.get(type(value), type(value).__name__)  # TOML also has dates and times
    if secret:
        return kind
    if isinstance(value, str):
        return f'text "{printable(value)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 64:  # str() refuses thousands of digits
        return f"a number of {value.bit_length()} bits"
    return f"{printable(str(value))}" if isinstance(value, int | float) else kind


class Findings:
    """Errors and warnings about one configuration, in the order of the file's sections."""

    def __init__(self) -> None:
        self.malformed: list[str] = []  # syntax, kinds of values, missing and repeated keys
        self.invalid: list[str] = []  # values of the right kind that cannot be used
        self.later: list[str] = []  # good values for features that this version does not have
        self.warnings: list[str] = []

    @property
    def errors(self) -> list[str]:
        """All that keeps the configuration from being used."""
        return [*self.malformed, *self.invalid, *self.later]

    def is_told(self, path: str) -> bool:
        """Whether the value at *path*, or one inside it, is missing or cannot be read."""
        return any(each.startswith((f"{path}:", f"{path}.", f"{path}[")) for each in self.malformed)

    def wrong_kind(self, path: str, value: object, expected: str, *, secret: bool = False) -> None:
        """The *value* at *path* is not of the *expected* kind."""
        came = shown(value, secret=secret)
        self._add(self.malformed, f"{path or 'the file'}: {came} found, {expected} expected")

    def missing(self, path: str) -> None:
        """A required key is not there."""
        self._add(self.malformed, f"{path}: missing, and it has no default")

    def repeated(self, path: str) -> None:
        """A key stands twice in its table."""
        self._add(self.malformed, f"{path}: given more than once")

    def syntax(self, text: str) -> None:
        """The file cannot be read as any format."""
        self._add(self.malformed, text)

    def bad_value(self, path: str, text: str) -> None:
        """The value at *path* cannot be used, as *text* says."""
        self._add(self.invalid, f"{path}: {text}" if path else text)

    def not_yet(self, path: str) -> None:
        """The value at *path* asks for a feature that does not exist yet."""
        self._add(self.later, f"{path}: is not in this version yet; remove it or turn it off")

    def no_effect(self, path: str) -> None:
        """The key at *path* is known, set, and without effect."""
        self._add(self.warnings, f"{path}: known, but without effect")

    def unknown(self, path: str, name: str, known: Iterable[str]) -> None:
        """There is no key *name* at *path*; the nearest of *known* is offered."""
        if len(self.warnings) > MOST_FINDINGS:
            return
        from difflib import get_close_matches  # 4 ms that a correct configuration need not pay

        near = (
            get_close_matches(name, list(known), n=1)
            if len(name) <= MOST_COMPARED_CHARACTERS
            else []
        )
        hint = f", the nearest known name is {near[0]}" if near else ""
        self._add(self.warnings, f"{path}: unknown key, ignored{hint}")

    @staticmethod
    def _add(findings: list[str], text: str) -> None:
        if len(findings) < MOST_FINDINGS:
            findings.append(text)
        elif len(findings) == MOST_FINDINGS:
            findings.append("and more of this sort")
