"""Cut the power of a process that fills a cache directory, and see what is served after the boot.

What the process does is recorded: after each call that changes files, every page of every file of
the directory that has changed (stores into mappings are seen so too), lengths, and names. `fsync`
and `fdatasync` make what a file has at that moment durable, `fsync` of the directory its names. A
disk after a power cut has, for each page on its own, any version since the last durable one; the
same for each length; and names as they were at one moment since. That is more than a real file
system does to anybody.

`python -m tests.faults.power FOLDER SCENARIO STATES [--without-record]` prints what it found as
JSON.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nydusd.cache import durable
from nydusd.cache.durable import file_identity
from tests.faults.kills import in_boot
from tests.faults.scenarios import SCENARIOS, Scenario, check, fault, prepare
from tests.faults.tracer import Call, follow, isolated

PAGE_BYTES = 4096
ZEROS = bytes(PAGE_BYTES)
DIRECTORIES = ("", "durable")  # the cache directory, and that of the records in it
CORNERS = ("nothing", "everything", "maps alone", "data alone")


class Inode:
    """One file: every version of each of its pages and of its length, and which are durable."""

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.pages: dict[int, list[bytes]] = {}  # the first version is zeros
        self.durable: dict[int, int] = {}  # page -> index of the version that is safe
        self.sizes = [0]
        self.durable_size = 0

    def see(self, content: bytes) -> None:
        """Note what the file has now."""
        if content != self.last():
            for number in range(-(-max(len(content), self.sizes[-1]) // PAGE_BYTES)):
                page = content[number * PAGE_BYTES :][:PAGE_BYTES].ljust(PAGE_BYTES, b"\0")
                versions = self.pages.setdefault(number, [ZEROS])
                if versions[-1] != page:
                    versions.append(page)
        if self.sizes[-1] != len(content):
            self.sizes.append(len(content))

    def last(self) -> bytes:
        """What was seen last."""
        pages = (self.pages.get(n, [ZEROS])[-1] for n in range(-(-self.sizes[-1] // PAGE_BYTES)))
        return b"".join(pages)[: self.sizes[-1]]

    def sync(self) -> None:
        """All that the file has is safe from now on."""
        self.durable = {number: len(versions) - 1 for number, versions in self.pages.items()}
        self.durable_size = len(self.sizes) - 1

    def copy(self) -> Inode:
        """The inode as it is now."""
        other = Inode(self.identity)
        other.pages = {number: list(versions) for number, versions in self.pages.items()}
        other.durable = dict(self.durable)
        other.sizes = list(self.sizes)
        other.durable_size = self.durable_size
        return other


class Moment(NamedTuple):
    """All that the disk may have when the power goes just now."""

    inodes: dict[int, Inode]
    names: dict[str, list[dict[str, int]]]  # each directory, every version since the durable one


class Recorder:
    """What a process does to *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inodes: dict[int, Inode] = {}
        self.names: dict[str, list[dict[str, int]]] = {name: [{}] for name in DIRECTORIES}
        self.moments: list[Moment] = []
        self.look()
        for inode in self.inodes.values():
            inode.sync()  # what was there before is on the disk
        self.names = {name: versions[-1:] for name, versions in self.names.items()}

    def look(self) -> None:
        """Note what the directories have now."""
        for directory, versions in self.names.items():
            names = {}
            place = self.folder / directory
            for path in place.iterdir() if place.exists() else ():
                names[path.name] = number = path.stat().st_ino
                if path.is_dir():
                    continue
                if number not in self.inodes:
                    self.inodes[number] = Inode(file_identity(path))
                self.inodes[number].see(path.read_bytes())
            if names != versions[-1]:
                versions.append(names)

    def at(self, pid: int, call: Call) -> bool:
        """Note what call *call* of *pid* has changed."""
        if not call.after:
            return False
        self.look()
        if call.name in ("fsync", "fdatasync"):
            number = Path(f"/proc/{pid}/fd/{call.args[0]}").stat().st_ino
            if number in self.inodes:
                self.inodes[number].sync()
            for directory, versions in self.names.items():
                place = self.folder / directory
                if place.exists() and place.stat().st_ino == number:
                    self.names[directory] = versions[-1:]
        inodes = {number: inode.copy() for number, inode in self.inodes.items()}
        names = {name: list(versions) for name, versions in self.names.items()}
        self.moments.append(Moment(inodes, names))
        return False


def assemble(moment: Moment, folder: Path, corner: str, rng: random.Random) -> None:
    """Write one state that a disk may have at *moment* to *folder*."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    chosen = {}
    for directory, versions in moment.names.items():
        chosen[directory] = versions[0 if corner == "nothing" else -1]
        if corner == "random":
            chosen[directory] = rng.choice(versions)
    files = dict(chosen[""])
    for directory in DIRECTORIES[1:]:
        if files.pop(directory, None) is not None:
            (folder / directory).mkdir()
            files |= {f"{directory}/{name}": n for name, n in chosen[directory].items()}
    first_names: dict[int, Path] = {}
    for name, number in sorted(files.items()):
        path = folder / name
        if number in first_names:
            os.link(first_names[number], path)
            continue
        first_names[number] = path
        is_map = name.endswith("_map")
        new = corner == "everything" or corner == ("maps alone" if is_map else "data alone")
        write_inode(moment.inodes[number], path, None if corner == "random" else new, rng)
    rename_in_record(moment, folder, first_names)


def write_inode(inode: Inode, path: Path, new: bool | None, rng: random.Random) -> None:
    """The file with its newest versions or its durable ones, or mixed at random (None)."""

    def pick(durable_index: int, count: int) -> int:
        if new is None:
            return rng.randint(durable_index, count - 1)
        return count - 1 if new else durable_index

    with path.open("wb") as file:
        size = inode.sizes[pick(inode.durable_size, len(inode.sizes))]
        for number, versions in inode.pages.items():
            page = versions[pick(inode.durable.get(number, 0), len(versions))]
            if page != ZEROS and number * PAGE_BYTES < size:
                file.seek(number * PAGE_BYTES)
                file.write(page)
        file.truncate(size)


def rename_in_record(moment: Moment, folder: Path, places: dict[int, Path]) -> None:
    """Let the record speak of the files of *folder* as it spoke of those that they stand for."""
    identities = {
        moment.inodes[number].identity: file_identity(path) for number, path in places.items()
    }
    for path in folder.glob("durable/*.durable_map"):
        head = path.read_bytes()[: durable.LAYOUT.size]
        if len(head) < durable.LAYOUT.size or not head.startswith(durable.MAGIC):
            continue
        _, _, chunks, boot, size, data, map_size, chunk_map = durable.LAYOUT.unpack(head)
        header = durable.Header(
            chunks,
            boot,
            identities.get(data[:size], b"gone"),
            identities.get(chunk_map[:map_size], b"gone"),
        )
        with path.open("r+b") as file:
            file.write(header.pack())


def main(folder: Path, name: str, states: int, *, with_record: bool) -> None:
    """*states* disks of the scenario *name*: half of them corners of its moments, half random."""
    logging.getLogger("nydusd").setLevel(logging.CRITICAL)
    scenario = SCENARIOS[name]
    moments, blob = record(scenario, folder)
    rng = random.Random(f"{name} {states}")
    plans = [(moment, corner) for corner in CORNERS for moment in range(len(moments))]
    rng.shuffle(plans)
    plans = plans[: states // 2]
    plans += [(rng.randrange(len(moments)), "random") for _ in range(states - len(plans))]
    wrong = []
    for moment, corner in plans:
        assemble(moments[moment], folder, corner, rng)
        if not with_record:
            for path in folder.glob("durable/*.durable_map"):
                path.unlink()
        problem = isolated(partial(in_boot, 3, check, scenario, blob, folder))
        if problem:
            wrong.append(f"{name}, {corner} after call {moment}: {problem}")
    json.dump({"moments": len(moments), "states": len(plans), "wrong": wrong}, sys.stdout)


def record(scenario: Scenario, folder: Path) -> tuple[list[Moment], object]:
    """Every moment of the scenario, and its blob."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    blob = scenario.make()
    begun = isolated(partial(prepare, scenario, blob, folder))
    assert not begun, begun
    recorder = Recorder(folder)
    follow(partial(in_boot, 2, fault, scenario, blob, folder), recorder.at)
    return recorder.moments, blob


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        sys.argv[2],
        int(sys.argv[3]),
        with_record="--without-record" not in sys.argv,
    )
