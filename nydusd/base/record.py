"""`NamedTuple` as typing has it, but made in a twentieth of the time.

That of typing compiles each field's type and a constructor for each class: with sixty classes a
seventh of a daemon's start. Here they share one constructor. Everything else is as documented for
`collections.namedtuple`; to a type checker it is the one of typing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or sys.version_info >= (3, 14):  # where annotations are lazy, and cost nothing
    from typing import NamedTuple as NamedTuple
else:
    from collections import _tuplegetter  # what namedtuple uses: reads a field in C

    class _Record(tuple):
        """What the classes have in common."""

        __slots__ = ()
        _fields = ()
        _field_defaults = {}  # noqa: RUF012

        def __new__(cls, /, *values: Any, **named: Any) -> _Record:  # noqa: ANN401
            """The tuple of *values* and *named*; `TypeError` as a function would raise."""
            if named or len(values) != len(cls._fields):
                values = _complete(cls, values, named)
            return tuple.__new__(cls, values)

        @classmethod
        def _make(cls, iterable: Any) -> _Record:  # noqa: ANN401
            return cls(*iterable)

        def _replace(self, /, **named: Any) -> _Record:  # noqa: ANN401
            values = list(map(named.pop, self._fields, self))
            if named:
                raise ValueError(f"Got unexpected field names: {list(named)!r}")
            return tuple.__new__(type(self), values)

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            """The class with its fields."""
            shown = (f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({', '.join(shown)})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            """For pickle and copy."""
            return tuple(self)

    class _RecordType(type):
        """Turns the annotations of a class body into the fields of a tuple."""

        def __new__(cls, name: str, _: tuple[type, ...], space: dict[str, Any]) -> type:
            names = tuple(space.get("__annotations__", ()))
            space["__slots__"] = ()
            space["_field_defaults"] = {each: space[each] for each in names if each in space}
            for index, each in enumerate(names):
                space[each] = _tuplegetter(index, "")
            space["_fields"] = space["__match_args__"] = names
            return type(name, (_Record,), space)

    NamedTuple = type.__new__(_RecordType, "NamedTuple", (), {})

    def _complete(cls: type, values: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        """All the fields of *cls*: *values*, then those *named*, then the defaults."""
        names = cls._fields
        if len(values) > len(names):
            _refuse(cls, f"{len(names)} fields, and {len(values)} are given")
        given = dict(zip(names, values, strict=False))
        for name, value in named.items():
            if name in given or name not in names:
                _refuse(cls, f"field {name!r} " + ("twice" if name in given else "is unknown"))
            given[name] = value
        whole = {**cls._field_defaults, **given}
        missing = [name for name in names if name not in whole]
        if missing:
            _refuse(cls, f"no {', '.join(missing)}")
        return [whole[name] for name in names]

    def _refuse(cls: type, what: str) -> NoReturn:
        raise TypeError(f"{cls.__name__}(): {what}")
