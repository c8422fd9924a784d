"""Secrets that no output of the program may hold, and the search of all outputs of a test run.

Every secret of the tests has one shape: `MARK` is in it. What is made of one, base64 and hex, has a
trace of `MARK` that is searched for as well.
`tests/conftest.py` hands over what the tests get to see: log lines, errors, what processes write,
API replies, files. A finding fails the test that was running, else the session.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

MARK = "UNSPOKEN"
LONGEST_FILE = 64 << 20  # log files are shorter; a core is searched as far
SEARCHED_FILES = re.compile(r"core|.*\.log|log|.*\.(out|err)|core\..*")
LOGS_OF_OTHERS = ("config.yml", "nginx.conf")  # stand beside the logs of servers that tests start


def secret(name: str) -> str:
    """A secret called *name*."""
    return f"{MARK}-{name}"


def login(user: str, name: str) -> str:
    """The base64 of *user* and a password called *name*, as registries take it."""
    return base64.b64encode(f"{user}:{secret(name)}".encode()).decode()


def cipher_key(name: str) -> str:
    """A key of 32 bytes for the files of a cache, in hex."""
    return secret(name).encode().ljust(32, b".").hex()


def traces(text: str) -> set[bytes]:
    """*text*, its hex, and what is always the same in the base64 of anything that holds it."""
    plain = text.encode()
    found = {plain, plain.hex().encode(), plain.hex().upper().encode()}
    for before in range(3):
        # Of the four characters for three bytes only those count that depend on *text* alone.
        encoded = base64.b64encode(b"\0" * before + plain)
        whole = (before + len(plain)) * 8 // 6
        found.add(encoded[-(-before * 8 // 6) : whole])
    return found


class Search:
    """What was found so far, by where it was."""

    def __init__(self) -> None:
        self.searched = 0  # outputs
        self.found: list[str] = []
        self._traces = traces(MARK)
        self._shape = self._compiled()

    def learn(self, value: str) -> None:
        """Search for *value* too: a secret that somebody else has made."""
        self._traces |= traces(value)
        self._shape = self._compiled()

    def look(self, where: str, output: str | bytes) -> None:
        """Note what *output*, which came from *where*, holds of a secret."""
        data = output.encode(errors="replace") if isinstance(output, str) else bytes(output)
        self.searched += 1
        for match in self._shape.finditer(data):
            around = data[max(0, match.start() - 60) : match.end() + 20]
            self.found.append(f"{where}: ...{around.decode(errors='replace')}...")

    def look_below(self, folder: Path) -> None:
        """Search the log files and cores below *folder*."""
        for path in folder.rglob("*"):
            if not SEARCHED_FILES.fullmatch(path.name) or path.is_symlink() or not path.is_file():
                continue
            if any((path.parent / name).exists() for name in LOGS_OF_OTHERS):
                continue
            with path.open("rb") as file:
                self.look(str(path), file.read(LONGEST_FILE))

    def take(self) -> list[str]:
        """What was found since the last time."""
        found, self.found = self.found, []
        return found

    def _compiled(self) -> re.Pattern[bytes]:
        return re.compile(b"|".join(re.escape(each) for each in sorted(self._traces)))


search = Search()
