"""What is given hostile input, each with good seeds and with everything it can be asked.

A target takes a mutant and puts every question to the parser: an answer or an error of ours is
right, anything else that is raised is a failure. Where the checker finds no fault, the image must
also hold what the checker promises.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

from nydusd.backend.gpt import read_partitions
from nydusd.base.errors import BootstrapError, NydusError
from nydusd.base.mapping import Mapping
from nydusd.build.check import FINDINGS_MAX, CheckReport
from nydusd.build.check_tree import TreeCheck
from nydusd.cache.chunkmap import create_header, open_chunk_map
from nydusd.codec.compression import compress, decompress
from nydusd.codec.zran import inflate
from nydusd.config.load import parse_config
from nydusd.rafs.blobmeta import BlobMeta, header_difference
from nydusd.rafs.blobs import BlobInfo, Compressor
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.load import bootstrap_of_bytes, load_bootstrap
from nydusd.rafs.toc import find_sections, open_section, parse_toc, tail_size
from nydusd.rafs.zran_table import Stretch
from tests.hostile import fixups, texts
from tests.hostile.mutations import mutate
from tests.hostile.structures import Map, map_ci, map_gpt, map_toc, map_v5, map_v6, map_words

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
ASKED = 24  # inodes of one image that are asked everything
NAMES_WALKED = 300
EXPECTED = (OSError, NydusError)  # an answer of ours
BLOB_ID = "f" * 64


@dataclass
class Seed:
    """A good input."""

    name: str
    data: bytes
    known: Map
    about: object = None  # what a target must know beside the bytes


@dataclass
class Target:
    """One parser. *run* is True when the input came past the first checks."""

    name: str
    share: int  # of all inputs
    seeds: Callable[[], list[Seed]]
    run: Callable[[bytes, Seed, Random], bool]
    change: Callable[[Seed, Random], bytes]
    made: list[Seed] = field(default_factory=list)

    def input(self, rng: Random) -> tuple[Seed, bytes]:
        """A seed and its mutant."""
        if not self.made:
            self.made = self.seeds()
        seed = rng.choice(self.made)
        return seed, self.change(seed, rng)


# bootstraps


def golden_bootstraps(version: int) -> list[tuple[str, bytes]]:
    """Small bootstraps of the reference's builder."""
    found = [(path.parent.name, path.read_bytes()) for path in sorted(GOLDEN.glob("*/*/bootstrap"))]
    found += [
        (path.name, gzip.decompress(path.read_bytes()))
        for path in sorted(GOLDEN.glob("builds/*.boot.gz"))
    ]
    magic = b"SFAR" if version == 5 else b""
    return [
        (name, data)
        for name, data in found
        if data.startswith(b"SFAR") == bool(magic) and len(data) <= 1 << 17
    ]


def seeds_v5() -> list[Seed]:
    return [Seed(name, data, map_v5(data)) for name, data in golden_bootstraps(5)]


def seeds_v6() -> list[Seed]:
    found = []
    for name, data in golden_bootstraps(6):
        walk = bootstrap_of_bytes(data, BLOB_ID).walk()
        found.append(Seed(name, data, map_v6(data, [met.ino for met in walk])))
    return found


def change_v5(seed: Seed, rng: Random) -> bytes:
    """A mutant, half of them with digests made right again."""
    raw = mutate(seed.data, seed.known, rng)
    if rng.random() < 0.5:
        fixups.digests_v5(raw)
    return bytes(raw)


def change_plainly(seed: Seed, rng: Random) -> bytes:
    return bytes(mutate(seed.data, seed.known, rng))


def run_bootstrap(raw: bytes, seed: Seed, rng: Random) -> bool:
    try:
        bootstrap = bootstrap_of_bytes(raw, BLOB_ID, validate=rng.random() < 0.5)
    except BootstrapError:
        return False
    ask_everything(bootstrap, rng)
    return True


def ask_everything(bootstrap: Bootstrap, rng: Random) -> None:
    """Walk, check and ask *bootstrap*; what the checker finds good must be so."""
    report = CheckReport()
    TreeCheck(bootstrap, report).run()
    assert len(report.findings) <= FINDINGS_MAX + 1
    if not report.findings:
        hold_to_promise(bootstrap)
    inos = [0, 1, bootstrap.root_ino, 2**64 - 1, rng.getrandbits(16), *bootstrap.prefetch_inos[:4]]
    with suppress(*EXPECTED):
        met = [entry.ino for entry in islice(bootstrap.walk(), NAMES_WALKED)]
        inos += rng.sample(met, min(len(met), ASKED))
    for ino in inos:
        for question in questions(bootstrap, ino, rng):
            with suppress(*EXPECTED):
                question()


def questions(bootstrap: Bootstrap, ino: int, rng: Random) -> list[Callable[[], object]]:
    offset = rng.choice([0, 1, 4095, 2**20, 2**31, 2**62, 2**63 - 1, rng.getrandbits(40)])
    name = rng.choice([b".", b"..", b"a", b"file", b"\xff" * 255, b"x" * 300, b""])
    return [
        lambda: bootstrap.stat(ino),
        lambda: list(islice(bootstrap.iter_entries(ino), NAMES_WALKED)),
        lambda: bootstrap.target(ino),
        lambda: bootstrap.xattrs(ino),
        lambda: bootstrap.xattr_value(ino, b"user.x"),
        lambda: list(islice(bootstrap.chunk_spans(ino), NAMES_WALKED)),
        lambda: list(islice(bootstrap.chunk_spans(ino, offset, 1 << 20), NAMES_WALKED)),
        lambda: bootstrap.following_spans(ino, offset, 1 << 20),
        lambda: bootstrap.child(ino, name),
    ]


def hold_to_promise(bootstrap: Bootstrap) -> None:
    """An image without a finding answers every question about every name."""
    for path, ino in islice(bootstrap.walk(), NAMES_WALKED):
        found = bootstrap.stat(ino)
        bootstrap.xattrs(ino)
        parent, _, name = path.rpartition(b"/")
        if name and path.count(b"/") == 1:
            assert bootstrap.child(bootstrap.root_ino, name) == ino, (parent, name)
        if stat.S_ISREG(found.mode) and found.size < 1 << 40:
            spans = list(islice(bootstrap.chunk_spans(ino), NAMES_WALKED))
            assert len(spans) == NAMES_WALKED or sum(s.length for s in spans) == found.size, path
        elif stat.S_ISLNK(found.mode):
            assert len(bootstrap.target(ino)) == found.size, path


# blobs


def golden_blobs() -> list[tuple[str, BlobInfo, bytes]]:
    """Blobs of golden images with a table of chunks, as their bootstrap describes them."""
    found = []
    kinds = ("images/v6-*", "bootstraps/v6-*", "layers/*")
    for folder in sorted(found for kind in kinds for found in GOLDEN.glob(kind)):
        path = folder / "bootstrap"
        if not path.exists():
            path = min((folder / "blobs").iterdir())
        for blob in load_bootstrap(path).blobs:
            data = folder / "blobs" / blob.meta_blob_id
            if blob.ci_compressed_size and not blob.cipher and data.exists():
                found.append((folder.name, blob, data.read_bytes()))
    return found


def seeds_meta() -> list[Seed]:
    """Plain tables of chunks, their header behind them."""
    found = []
    for name, blob, data in golden_blobs():
        stored = data[blob.ci_offset :][: blob.ci_compressed_size]
        plain = decompress(blob.ci_compressor, stored, blob.ci_uncompressed_size)
        header = data[blob.ci_offset + blob.ci_compressed_size :][:4096]
        contexts = int.from_bytes(header[56:60], "little")
        entry = 24 if blob.features & 4 else 16
        known = map_ci(plain + header, entry, blob.chunk_count, contexts, bool(blob.features & 8))
        found.append(Seed(name, plain + header, known, blob))
    return found


def run_meta(raw: bytes, seed: Seed, rng: Random) -> bool:
    blob = seed.about
    assert isinstance(blob, BlobInfo)
    size = max(0, len(raw) - 4096)
    header_difference(raw[size:].ljust(4096, b"\0")[:4096], blob)
    if rng.random() < 0.3:  # a blob table that lies as well
        blob = blob._replace(
            chunk_count=rng.choice([0, 1, blob.chunk_count + 1, size // 24, size // 16, 1 << 24]),
            data_size=rng.choice([0, 1, blob.data_size, 2**40]),
            uncompressed_size=rng.choice([0, 1, blob.uncompressed_size, 2**44 - 1]),
        )
    try:
        meta = BlobMeta(Mapping.of_bytes(raw[:size]), blob, raw[size:])
    except NydusError:
        return False
    for index in [*range(min(blob.chunk_count, 200)), blob.chunk_count, 2**32 - 1]:
        with suppress(*EXPECTED):
            place = meta.place(index)
            assert place.uncompressed_size <= blob.chunk_size
            assert place.uncompressed_offset + place.uncompressed_size <= meta.uncompressed_end
    for index in range(min(meta.contexts_count, 50) if meta.zran is not None else 0):
        with suppress(*EXPECTED):
            inflate_stretch(meta.zran.at(index), rng)  # type: ignore[union-attr]
    return True


def inflate_stretch(found: Stretch, rng: Random) -> None:
    """Enter a stream of noise, or of another history, as a context says."""
    stored = rng.choice([rng.randbytes(200), zlib.compress(b"nydus" * 999, wbits=-15)])
    plain = inflate(
        stored, min(found.out_size, 1 << 16), found.dictionary, found.lead_byte, found.lead_bits
    )
    assert len(plain) == min(found.out_size, 1 << 16)


def seeds_toc() -> list[Seed]:
    """Whole blobs with a table of contents: small ones."""
    found = []
    for path in sorted(GOLDEN.glob("[bi]*/v6-*/blobs/*")):
        data = path.read_bytes()
        sections = {}
        if len(data) < 1 << 17:
            with suppress(NydusError):
                sections = find_sections(data[-tail_size(len(data)) :], len(data))
        if len(sections) < 2:
            continue
        tail = 512 + int(data[-512 + 124 : -512 + 135].strip(b"\0 "), 8)
        known = map_toc(data[-tail:])
        start = len(data) - tail
        moved = Map(
            [item._replace(offset=item.offset + start) for item in known.fields],
            [(base + start, size, count) for base, size, count in known.records],
            [place + start for place in known.places]
            + [section.offset for section in sections.values()],
        )
        found.append(Seed(path.parent.parent.name, data, moved, tail))
    return found


def change_toc(seed: Seed, rng: Random) -> bytes:
    raw = mutate(seed.data, seed.known, rng)
    if rng.random() < 0.7:
        fixups.toc(raw)
    return bytes(raw)


def run_toc(raw: bytes, seed: Seed, rng: Random) -> bool:
    sections = {}
    with suppress(NydusError):
        sections = find_sections(raw[len(raw) - tail_size(len(raw)) :], len(raw))
    with suppress(NydusError):
        parse_toc(raw[-640:], rng.choice([len(raw), 0, 2**63]))
    for section in sections.values():
        if section.name == "image.blob":
            continue
        with suppress(*EXPECTED):
            plain = open_section(section, raw[section.offset :][: section.compressed_size])
            assert len(plain) == section.uncompressed_size
    fd, path = tempfile.mkstemp(dir=scratch())
    try:
        os.write(fd, raw)
        ask_everything(load_bootstrap(path), rng)
    except BootstrapError:
        pass
    finally:
        os.close(fd)
        os.unlink(path)  # noqa: PTH108 - it is a string
    return bool(sections)


def scratch() -> str:
    """A folder in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


# disks


def seeds_gpt() -> list[Seed]:
    """Disks of 40 sectors with two partitions, and a backup table at the end."""
    entries = b"".join(
        struct.pack(
            "<16s16sQQQ72s", b"k" * 16, bytes([n]) * 16, 10 + 4 * n, 12 + 4 * n, 0, b"b\0l\0"
        )
        for n in range(2)
    ).ljust(1024, b"\0")
    disk = bytearray(512 * 40)
    for own, other, first in ((1, 39, 2), (39, 1, 36)):
        header = struct.pack(
            "<8sIIIIQQQQ16sQIII",
            *(b"EFI PART", 0x10000, 92, 0, 0, own, other, 4, 35, b"g" * 16, first, 8, 128, 0),
        )
        disk[512 * own : 512 * own + 92] = header
        disk[512 * first : 512 * first + 1024] = entries
    fixups.gpt(disk)
    known = map_gpt()
    return [Seed("two partitions", bytes(disk), known)]


def change_gpt(seed: Seed, rng: Random) -> bytes:
    raw = mutate(seed.data, seed.known, rng)
    if rng.random() < 0.85:
        fixups.gpt(raw)
    return bytes(raw)


def run_gpt(raw: bytes, seed: Seed, rng: Random) -> bool:
    def read(offset: int, size: int) -> bytes:
        assert size <= len(raw) + (1 << 20)
        return raw[offset : offset + size]

    try:
        found = read_partitions(read, len(raw), 512)
    except NydusError:
        return False
    end = 0
    for partition in sorted(found, key=lambda one: one.offset):
        assert partition.offset >= end
        end = partition.offset + partition.size
        assert end <= len(raw)
    return True


# the cache


def seeds_chunkmap() -> list[Seed]:
    found = []
    for count in (1, 8, 9, 1000):
        with tempfile.TemporaryFile() as file:
            create_header(file.fileno(), count)
            file.seek(0)
            data = bytearray(file.read())
        data = data.ljust(4096 + (count + 7) // 8, b"\xa5")
        known = map_words(bytes(data[:64]), 4, "header")
        known.places += [4096, len(data)]
        found.append(Seed(f"{count} chunks", bytes(data), known, count))
    return found


def run_chunkmap(raw: bytes, seed: Seed, rng: Random) -> bool:
    count = seed.about
    assert isinstance(count, int)
    fd, path = tempfile.mkstemp(dir=scratch())
    try:
        os.write(fd, raw)
        found = open_chunk_map(path, count)
        for index in range(count):
            if not found.ready(index) and found.try_claim(index):
                found.mark_ready(index)
                assert found.ready(index)
        assert found.ready_count() == count
        found.close()
    except EXPECTED:
        return False
    finally:
        os.close(fd)
        os.unlink(path)  # noqa: PTH108 - it is a string
    return True


# configurations and compressed data


def seeds_config() -> list[Seed]:
    return [Seed(name, text.encode(), Map()) for name, text in texts.CONFIGS.items()]


def change_config(seed: Seed, rng: Random) -> bytes:
    return texts.change(seed.data, rng)


def run_config(raw: bytes, seed: Seed, rng: Random) -> bool:
    try:
        config = parse_config(raw)
    except NydusError as exc:
        if not str(exc).isprintable():
            raise AssertionError(f"a line that cannot be shown: {exc!r}") from exc
        return False
    repr(config)
    return True


def seeds_stored() -> list[Seed]:
    """Compressed pieces, some of which become a thousand times as long."""
    random = Random(1)
    pieces = [b"", b"a", bytes(1 << 20), random.randbytes(5000), b"nydus" * 5000]
    found = []
    for compressor in (Compressor.LZ4_BLOCK, Compressor.ZSTD):
        for number, plain in enumerate(pieces):
            stored = compress(compressor, plain)
            name = f"{compressor.name} {number}"
            found.append(Seed(name, stored, map_words(stored, 4, name), (compressor, len(plain))))
    stored = gzip.compress(pieces[3])
    found.append(Seed("gzip", stored, map_words(stored, 4, "gzip"), (Compressor.GZIP, 5000)))
    return found


def run_stored(raw: bytes, seed: Seed, rng: Random) -> bool:
    compressor, size = seed.about  # type: ignore[misc]
    size = rng.choice([size, size, 0, 1, size + 1, max(0, size - 1), 1 << 20])
    try:
        plain = decompress(int(compressor), raw, size)
    except EXPECTED:
        return False
    assert len(plain) == size
    return True


TARGETS = [
    Target("v5", 28, seeds_v5, run_bootstrap, change_v5),
    Target("v6", 30, seeds_v6, run_bootstrap, change_plainly),
    Target("blob meta", 10, seeds_meta, run_meta, change_plainly),
    Target("ToC", 8, seeds_toc, run_toc, change_toc),
    Target("GPT", 6, seeds_gpt, run_gpt, change_gpt),
    Target("chunk map", 4, seeds_chunkmap, run_chunkmap, change_plainly),
    Target("config", 8, seeds_config, run_config, change_config),
    Target("stored chunk", 4, seeds_stored, run_stored, change_plainly),
]
BY_NAME = {target.name: target for target in TARGETS}


def describe(target: str, seed: int, index: int) -> str:
    """How an input is made again."""
    return json.dumps({"target": target, "seed": seed, "index": index})
