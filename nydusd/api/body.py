"""Bodies of requests: JSON objects with known fields, and what is wrong with one, said as serde."""

import json
from typing import Any

from nydusd.api.errors import ApiError

KIND_NAMES: dict[type, str] = {str: "a string", dict: "a map", list: "a sequence"}
DEPTH_MAX = 100


def parse_error(text: str, line: int, column: int) -> ApiError:
    """The body cannot be understood: *text* says why."""
    # the text in quotes, its own double quotes escaped: the debug form of the reference's parser
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return ApiError(400, f'ParseBody(Error("{quoted}", line: {line}, column: {column}))')


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in *body*; `ApiError` when it is none."""
    try:
        text = body.decode()
        value = json.loads(text)
    except UnicodeDecodeError as exc:
        raise parse_error("invalid unicode code point", 1, exc.start + 1) from exc
    except json.JSONDecodeError as exc:
        raise parse_error(_serde_text(exc), exc.lineno, exc.colno) from exc
    except RecursionError as exc:
        raise parse_error("recursion limit exceeded", 1, DEPTH_MAX) from exc
    except ValueError as exc:  # a number with more digits than Python converts
        raise parse_error("number out of range", 1, 1) from exc
    if not isinstance(value, dict):
        raise parse_error(f"invalid type: {_described(value)}, expected a map", 1, 1)
    return value


def _serde_text(exc: json.JSONDecodeError) -> str:
    if exc.pos >= len(exc.doc.rstrip()):
        return "EOF while parsing a value"
    return "expected value" if exc.msg.startswith("Expecting value") else exc.msg.lower()


def field(body: bytes, fields: dict[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401
    """The field *name* of *fields*, which were read from *body*; `ApiError` when it is not there.

    It is of *kind*, or that is an `ApiError` too.
    """
    if name not in fields:
        raise parse_error(f"missing field `{name}`", *_end_of(body))
    return _checked(body, fields[name], kind)


def optional_field(
    body: bytes, fields: dict[str, Any], name: str, kind: type, default: object
) -> Any:  # noqa: ANN401 - JSON
    """As `field`, or *default* where it is missing or null."""
    value = fields.get(name)
    return default if value is None else _checked(body, value, kind)


def strings(body: bytes, values: list[Any]) -> tuple[str, ...]:
    """*values*, all strings; `ApiError`."""
    return tuple(_checked(body, value, str) for value in values)


def _checked(body: bytes, value: Any, kind: type) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(value, kind):
        line, column = _end_of(body)
        text = f"invalid type: {_described(value)}, expected {KIND_NAMES[kind]}"
        raise parse_error(text, line, max(0, column - 1))
    return value


def _end_of(body: bytes) -> tuple[int, int]:
    """Line and column of the last byte, counted from 1."""
    lines = body.rstrip().split(b"\n")
    return len(lines), len(lines[-1])


def _described(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean `{str(value).lower()}`"
    if isinstance(value, int):
        return f"integer `{value}`"
    if isinstance(value, float):
        return f"floating point `{value}`"
    if isinstance(value, str):
        return f'string "{value[:80]}"'
    return "sequence" if isinstance(value, list) else "map"
