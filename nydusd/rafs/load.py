"""From a path to a bootstrap: a bootstrap file, or a blob that holds its own.

Local files only: a bootstrap inside a blob that is kept elsewhere is brought here first by the
cache's sidecars (`bootstrap_of_bytes`). Facts: docs/formats/blobs.md.
"""

import os
import stat
from pathlib import Path

from nydusd.base.errors import BlobCorrupt, BootstrapError
from nydusd.base.mapping import Mapping
from nydusd.rafs.blobs import name_blobs
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.read_v5 import BootstrapV5
from nydusd.rafs.read_v6 import BootstrapV6
from nydusd.rafs.tables_v5 import table_faults as faults_v5
from nydusd.rafs.tables_v6 import table_faults as faults_v6
from nydusd.rafs.toc import BOOTSTRAP_SECTION, find_sections, open_section, tail_size

_MAGIC_V5 = b"SFAR"
_MAGIC_V6 = b"\xe2\xe1\xf5\xe0"
_MAGIC_V6_OFFSET = 1024


def load_bootstrap(path: str | os.PathLike[str], *, validate: bool = False) -> Bootstrap:
    """The bootstrap in the file *path*, or in the blob that it is.

    *validate*: check the digests of inodes when they are met (v5; v6 has none). Reads the tables
    only, whatever the size of the image. `BootstrapError` says what cannot be used, `OSError` that
    the file cannot be read.
    """
    path = Path(path)
    file, out_of_blob = _find(path)
    return _open(file, path, out_of_blob=out_of_blob, validate=validate)


def table_faults(path: str | os.PathLike[str]) -> list[str]:
    """A line for each fault of the tables that keeps `load_bootstrap` from using the file *path*.

    At most `FAULTS_MAX` and one; [] when the tables have none. The same errors are raised where
    there is no bootstrap at all.
    """
    path = Path(path)
    file, _ = _find(path)
    faults = faults_v5(file) if _is_v5(file, path) else faults_v6(file)
    return [f"{path}: {fault}" for fault in faults]


def bootstrap_of_bytes(
    data: bytes, path: str | os.PathLike[str], *, validate: bool = False
) -> Bootstrap:
    """The bootstrap *data*, which was taken out of the blob that *path* names."""
    return _open(Mapping.of_bytes(data), Path(path), out_of_blob=True, validate=validate)


def blob_id_of_path(path: str | os.PathLike[str]) -> str:
    """The blob id that a file's name gives: its last part up to the first dot."""
    return Path(path).name.split(".", 1)[0]


def is_bootstrap(head: bytes) -> bool:
    """Whether a file that begins with *head* (1028 bytes or more) has a bootstrap's magic."""
    v6 = head[_MAGIC_V6_OFFSET : _MAGIC_V6_OFFSET + len(_MAGIC_V6)]
    return head.startswith(_MAGIC_V5) or v6 == _MAGIC_V6


def _find(path: Path) -> tuple[Mapping, bool]:
    """The file *path*, or the bootstrap in it when it is a blob with one, and whether it is."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise BootstrapError(f"{path}: not a regular file, so no bootstrap")
        size = status.st_size
        tail = os.pread(fd, tail_size(size), size - tail_size(size))
        try:
            section = find_sections(tail, size).get(BOOTSTRAP_SECTION)
            if section is not None:
                stored = os.pread(fd, section.compressed_size, section.offset)
                return Mapping.of_bytes(open_section(section, stored)), True
        except BlobCorrupt as error:
            raise BootstrapError(f"{path}: a blob, but {error}: get it again") from error
        return Mapping(fd), False
    finally:
        os.close(fd)


def _is_v5(file: Mapping, path: Path) -> bool:
    """Whether *file* begins as v5 does, and not as v6 does; `BootstrapError` when as none."""
    head_size = min(file.size, _MAGIC_V6_OFFSET + len(_MAGIC_V6))
    head = file.read(0, head_size) if head_size else b""
    if not is_bootstrap(head):
        raise BootstrapError(
            f"{path}: neither a RAFS v5 nor a RAFS v6 bootstrap, nor a blob that ends with one: "
            "give the file that `nydus-image create --bootstrap` wrote"
        )
    return head.startswith(_MAGIC_V5)


def _open(file: Mapping, path: Path, *, out_of_blob: bool, validate: bool) -> Bootstrap:
    v5 = _is_v5(file, path)
    try:
        bootstrap: Bootstrap = BootstrapV5(file, validate) if v5 else BootstrapV6(file)
    except BootstrapError as error:
        raise BootstrapError(f"{path}: {error}") from error
    bootstrap.blobs[:] = name_blobs(bootstrap.blobs, blob_id_of_path(path), out_of_blob=out_of_blob)
    return bootstrap
