"""Sections and keys as data, and the one reader and writer that work from them.

A key is stated once (in `config.sections`) with its name, kind, default, check and its name in
version 1; reading a file of either version, writing one and the nearest-name hints all come from
that. The reader goes down the declared sections, never down the file: how deep a file is nested
does not matter. It never raises for bad input; it notes what is wrong and goes on with defaults.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from nydusd.base.record import NamedTuple
from nydusd.config.findings import Findings, printable

MOST_TABLES: Final = 1000  # of a list; a megabyte could hold 300,000, and take seconds


class Table(dict[str, Any]):
    """A JSON object that remembers which of its keys stood there more than once."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        self.repeated: set[str] = set()
        for key, value in pairs:
            if key in self:
                self.repeated.add(key)
            self[key] = value


class Kind(NamedTuple):
    """What values a key takes: a word for messages, a test, and how the model holds them."""

    name: str
    fits: Callable[[Any], bool]
    to_model: Callable[[Any], Any] = lambda value: value
    to_file: Callable[[Any], Any] = lambda value: value


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_text(value: object) -> bool:
    """Text that can become a path or a header: JSON may also hold NUL and halves of characters."""
    return (
        isinstance(value, str)
        and "\0" not in value
        and (value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value))
    )


def _is_text_list(value: object) -> bool:
    return isinstance(value, list) and all(_is_text(item) for item in value)


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_text(name) and _is_text(item) for name, item in value.items()
    )


BOOL: Final = Kind("true or false", lambda value: isinstance(value, bool))
TEXT: Final = Kind("text", _is_text)
OPTIONAL_TEXT: Final = Kind("text or null", lambda value: value is None or _is_text(value))
BYTE: Final = Kind("a whole number from 0 to 255", lambda value: _is_whole(value, 0xFF))
NUMBER: Final = Kind(
    "a whole number from 0 to 4294967295", lambda value: _is_whole(value, 0xFFFF_FFFF)
)
SIZE: Final = Kind("a whole number, 0 or more", lambda value: _is_whole(value, (1 << 64) - 1))
TEXT_LIST: Final = Kind("a list of texts", _is_text_list, tuple, list)
TEXT_MAP: Final = Kind("a table of texts", _is_text_map, lambda value: tuple(value.items()), dict)
ANY: Final = Kind("a value", lambda value: True)


class Key(NamedTuple):
    """One key of a section, for both versions of the format.

    *required* names the versions in which the key must be there ("1", "2", "12"). *check* tells
    what is wrong with a value of the right kind, or "". *section* makes the value a table,
    *sections* a list of tables. A *later* key may only be given a value that asks for nothing.
    """

    name: str
    kind: Kind = ANY
    default: Any = None
    required: str = ""
    check: Callable[[Any], str] | None = None
    v1: str = ""  # its name in version 1, where that is another
    v1_default: Any = None  # its default in version 1, where that is another
    section: "Section | None" = None
    sections: "Section | None" = None
    secret: bool = False
    later: bool = False

    @property
    def attribute(self) -> str:
        """The model's field."""
        return self.name.replace("-", "_")

    def name_in(self, version: int) -> str:
        """The key's name in a file of *version*."""
        return self.v1 if version == 1 and self.v1 else self.name

    def default_in(self, version: int) -> Any:  # noqa: ANN401 - whatever the model's field holds
        """What a file of *version* means that does not have the key."""
        if version == 1 and self.v1_default is not None:
            return self.v1_default
        return self.default


class Section(NamedTuple):
    """One table of a file and the part of the model that it becomes.

    *inline* are parts of the model whose keys lie in this same table. *no_effect* are keys that
    other programs write and nobody reads. *check* looks at the finished part and yields
    `(key, what is wrong)`.
    """

    make: Callable[..., Any]
    keys: tuple[Key, ...]
    inline: tuple[tuple[str, "Section"], ...] = ()
    no_effect: tuple[str, ...] = ()
    check: Callable[[Any], Iterable[tuple[str, str]]] | None = None

    def names(self, version: int) -> list[str]:
        """Every key that the table may have in a file of *version*."""
        own = [key.name_in(version) for key in self.keys]
        return own + [name for _, part in self.inline for name in part.names(version)]


def joined(path: str, name: str) -> str:
    """The path of key *name* in the table at *path*, fit for a message."""
    return f"{path}.{printable(name)}" if path else printable(name)


def read_section(section: Section, raw: object, path: str, findings: Findings, version: int) -> Any:  # noqa: ANN401 - what `section.make` makes
    """The part of the model that table *raw* at *path* describes.

    What is wrong goes to *findings*; the part is then made of what could be read and is good for
    finding more mistakes, not for use.
    """
    if not isinstance(raw, dict):
        findings.wrong_kind(path, raw, "a table", secret=True)  # may be a URL with a password
        return _make(section, {}, path, Findings(), version)
    _warn_of_unknown(section, raw, path, findings, version)
    return _make(section, raw, path, findings, version)


def _warn_of_unknown(
    section: Section, raw: Mapping[str, Any], path: str, findings: Findings, version: int
) -> None:
    known = section.names(version)
    for name in raw:
        if name in section.no_effect:
            # Programs write these into every file with a value that asks for nothing.
            if raw[name]:
                findings.no_effect(joined(path, name))
        elif name not in known:
            findings.unknown(joined(path, name), name, known)


def _make(
    section: Section, raw: Mapping[str, Any], path: str, findings: Findings, version: int
) -> Any:  # noqa: ANN401
    values = {key.attribute: _read_key(key, raw, path, findings, version) for key in section.keys}
    for attribute, part in section.inline:
        values[attribute] = _make(part, raw, path, findings, version)
    made = section.make(**values)
    if section.check is not None:
        written = {key.name: key.name_in(version) for key in section.keys}
        for name, text in section.check(made):
            where = joined(path, written.get(name, name)) if name else path
            # What could not be read has its default now, and may fail the check because of that.
            if not findings.is_told(where):
                findings.bad_value(where, text)
    return made


def _read_key(key: Key, raw: Mapping[str, Any], path: str, findings: Findings, version: int) -> Any:  # noqa: ANN401
    name = key.name_in(version)
    here = joined(path, name)
    default = key.default_in(version)
    if name not in raw:
        if str(version) in key.required:
            findings.missing(here)
        return default
    if isinstance(raw, Table) and name in raw.repeated:
        findings.repeated(here)
    value = raw[name]
    if key.section is not None:
        # A section that may be absent altogether may also be null; one with defaults may not.
        if value is None and default is None and str(version) not in key.required:
            return None
        if key.later:
            findings.not_yet(here)
        return read_section(key.section, value, here, findings, version)
    if key.sections is not None:
        return _read_list(key.sections, value, here, findings, version)
    if not key.kind.fits(value):
        expected = key.kind.name
        if isinstance(value, str) and key.kind in (TEXT, OPTIONAL_TEXT):
            expected = "text without NUL and lone surrogates"
        findings.wrong_kind(here, value, expected, secret=key.secret)
        return default
    if key.check is not None and (text := key.check(value)):
        findings.bad_value(here, text)
    if key.later and value:
        findings.not_yet(here)
    return key.kind.to_model(value)


def _read_list(
    section: Section, value: object, path: str, findings: Findings, version: int
) -> tuple[Any, ...]:
    if not isinstance(value, list):
        findings.wrong_kind(path, value, "a list of tables", secret=True)
        return ()
    if len(value) > MOST_TABLES:
        findings.bad_value(path, f"{len(value)} tables, at most {MOST_TABLES} are read")
    return tuple(
        read_section(section, item, f"{path}[{index}]", findings, version)
        for index, item in enumerate(value[:MOST_TABLES])
    )


def write_section(section: Section, part: object) -> dict[str, Any]:
    """*part* of the model as a table of version 2, every key written; absent sections left out."""
    table: dict[str, Any] = {}
    for key in section.keys:
        value = getattr(part, key.attribute)
        if key.section is not None:
            if value is not None:
                table[key.name] = write_section(key.section, value)
        elif key.sections is not None:
            table[key.name] = [write_section(key.sections, item) for item in value]
        else:
            table[key.name] = key.kind.to_file(value)
    for attribute, inner in section.inline:
        table.update(write_section(inner, getattr(part, attribute)))
    return table
