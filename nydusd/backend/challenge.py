"""What a server asks for in `WWW-Authenticate`: schemes and their parameters (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re

from nydusd.base.record import NamedTuple

HEADER_MAX = 8192  # characters that are looked at

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(rf"({_TOKEN})(?=\s|,|$)")
_SEPARATOR = re.compile(r"[\s,]*")


class Challenge(NamedTuple):
    """One scheme that would do."""

    scheme: str  # lower case
    parameters: dict[str, str]  # lower-case names


def parse_challenges(header: str) -> list[Challenge]:
    """Every challenge of *header*, in its order; what cannot be read ends the list."""
    header = header[:HEADER_MAX]
    found: list[Challenge] = []
    at = 0
    while True:
        separator = _SEPARATOR.match(header, at)
        at = separator.end() if separator else at
        if found and (parameter := _PARAMETER.match(header, at)):
            name, quoted, plain = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            found[-1].parameters.setdefault(name.lower(), value)
            at = parameter.end()
        elif scheme := _SCHEME.match(header, at):
            found.append(Challenge(scheme[1].lower(), {}))
            at = scheme.end()
        else:
            return found


def wanted_challenge(header: str) -> Challenge | None:
    """The challenge that we can meet: a bearer token with a realm, else a password, else none."""
    basic = None
    for challenge in parse_challenges(header):
        if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            return challenge
        if challenge.scheme == "basic":
            basic = challenge
    return basic
