"""Make the references to OCI layers in `layers/` again with the reference's builder.

`python -m tests.golden.make_layers nydus-image`, as root. One small tree as a layer of each kind
that a registry may hold, and what the builder makes of it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

from tests.system.readback import manifest_of

LAYERS = Path(__file__).with_name("layers")
MTIME = 1_600_000_000
MEMBER_BYTES = 150_001  # plain bytes of a member of `members`
BGZIP_BYTES = 0xFF00  # of a member as bgzip makes them
BGZIP_EXTRA = b"BC\2\0"  # and two bytes of size


def make_tree(root: Path) -> None:
    """Fill *root*: small files, and one of 2.5 MiB that shrinks to some KiB."""
    rng = random.Random(24)
    words = [f"word{number} " for number in range(64)]
    for size in (0, 1, 100, 4096, 5000, 20_000):
        (root / f"file-{size}").write_text("".join(rng.choices(words, k=size))[:size])
    (root / "noise").write_bytes(rng.randbytes(3000))
    page = "".join(rng.choices(words, k=1500))
    pages = [page.replace("word1 ", f"page {number} ") for number in range(330)]
    (root / "large").write_text("".join(pages)[: 5 << 19])
    (root / "tail").mkdir()
    for number in range(12):
        (root / "tail" / f"leaf-{number:02d}").write_text("".join(pages[: number + 5]))
    os.link(root / "file-100", root / "tail" / "same")
    (root / "link").symlink_to("tail/leaf-00")
    for path in [*root.rglob("*"), root]:
        os.utime(path, (MTIME, MTIME), follow_symlinks=False)


def remove_large(root: Path) -> None:
    """Leave what may lie in a repository as it is."""
    (root / "large").unlink()
    for path in (root / "tail").glob("leaf-*"):
        path.unlink()
    for path in (root, root / "tail"):
        os.utime(path, (MTIME, MTIME))


def tar_of(root: Path) -> bytes:
    """*root* as a tar, entries in the order of their names."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in [root, *sorted(root.rglob("*"))]:
            tar.add(path, "./" + str(path.relative_to(root)), recursive=False)
    return out.getvalue()


def member(data: bytes, level: int = 9, memory: int = 8) -> bytes:
    """A gzip member without a name or a time."""
    stream = zlib.compressobj(level, zlib.DEFLATED, 31, memory)
    return stream.compress(data) + stream.flush()


def bgzip(data: bytes) -> bytes:
    """Members that tell their size in an extra field, and an empty one at the end."""
    out = b""
    for at in range(0, len(data) + BGZIP_BYTES, BGZIP_BYTES):
        plain = member(data[at : at + BGZIP_BYTES])
        size = len(plain) + len(BGZIP_EXTRA) + 4
        extra = BGZIP_EXTRA + struct.pack("<H", size - 1)
        out += plain[:3] + b"\4" + plain[4:10] + struct.pack("<H", len(extra)) + extra + plain[10:]
    return out


def estargz(data: bytes) -> bytes:
    """A member for the header of each entry and one for its data, then the ToC and the footer."""
    out = b""
    entries = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = tar.getmembers()
    for info, after in zip(infos, [*infos[1:], None], strict=True):
        end = after.offset if after else (info.offset_data + info.size + 511) & ~511
        entry = {"name": info.name.removeprefix("./"), "size": info.size}
        entry["type"] = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink"}.get(info.type, "reg")
        out += member(data[info.offset : info.offset_data])
        if info.size and info.isreg():
            entry["offset"] = len(out)
            out += member(data[info.offset_data : end])
        entries.append(entry)
    toc = json.dumps({"version": 1, "entries": entries}, sort_keys=True).encode()
    info = tarfile.TarInfo("stargz.index.json")
    info.size = len(toc)
    at = len(out)
    padded = toc + bytes(-len(toc) % 512) + bytes(1024)
    out += member(info.tobuf(tarfile.PAX_FORMAT) + padded)
    # The footer: an empty member whose extra field tells where the ToC is.
    extra = b"SG" + struct.pack("<H", 22) + f"{at:016x}STARGZ".encode()
    return (
        out
        + b"\x1f\x8b\x08\4\0\0\0\0\0\xff"
        + struct.pack("<H", len(extra))
        + extra
        + b"\1\0\0\xff\xff"
        + bytes(8)
    )


KINDS = {
    # Many small deflate blocks, entered in the middle of bytes and with 32 KiB of history.
    "gzip": lambda tar: member(tar, memory=1),
    "members": lambda tar: b"".join(
        member(tar[at : at + MEMBER_BYTES]) for at in range(0, len(tar), MEMBER_BYTES)
    ),
    "bgzip": bgzip,
    # The data of the large file would make this one large.
    "stored": lambda tar: member(tar[:40_000], 0) + member(tar[40_000:]),
    "estargz": estargz,
    # The last one, of what is small.
    "plain": lambda tar: tar,
}


def build(builder: str, name: str, layer: bytes, out: Path) -> None:
    """The image that refers to *layer*, in *out*."""
    blobs = out / "blobs"
    blobs.mkdir(parents=True)
    path = blobs / hashlib.sha256(layer).hexdigest()
    path.write_bytes(layer)
    kind = "estargz-ref" if name == "estargz" else "targz-ref"
    command = [builder, "create", "-t", kind, "-l", "error", "-B", str(out / "bootstrap")]
    command += ["-D", str(blobs), str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Write all images anew."""
    builder = sys.argv[1]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "tree")
        root.mkdir(mode=0o755)
        make_tree(root)
        shutil.rmtree(LAYERS, ignore_errors=True)
        for name, pack in KINDS.items():
            if name == "plain":
                remove_large(root)
            build(builder, name, pack(tar_of(root)), LAYERS / name)
            manifest = json.dumps(manifest_of(root), indent=1, sort_keys=True).encode()
            packed = gzip.compress(manifest, mtime=0)
            (LAYERS / name / "manifest.json.gz").write_bytes(packed)


if __name__ == "__main__":
    main()
