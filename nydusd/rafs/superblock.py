"""The superblock of a bootstrap as clients of the API know it: one flat record for v5 and v6.

For showing alone: the readers have looked at these fields before and believe nothing of them here.
"""

import struct
from typing import Any, Final

from nydusd.base.errors import BootstrapError
from nydusd.rafs.bootstrap import Bootstrap

# docs/formats/rafs-v5.md: from +0 to +80
_V5: Final = struct.Struct("<4I5Q4IQ")
# docs/formats/rafs-v6.md: the EROFS superblock at 1024, the extended one at 1152
_V6: Final = struct.Struct("<I8xBxH24xI44xHH")
_V6_OFFSET: Final = 1024
_V6_EXTENDED: Final = struct.Struct("<QQIIQQQI")
_V6_EXTENDED_OFFSET: Final = 1152
_V6_VERSION: Final = 0x600
_SLOT_UNIT: Final = 128  # bytes of `devt_slotoff`
_INO_BYTES: Final = 4  # of an entry of the prefetch table
FOR_EVER: Final = {"secs": 1 << 32, "nanos": 0}


def describe_superblock(bootstrap: Bootstrap) -> dict[str, Any]:
    """What the superblock of *bootstrap* says; offsets and sizes in bytes."""
    try:
        fields = _describe_v5(bootstrap) if bootstrap.version == 5 else _describe_v6(bootstrap)
    except (OSError, struct.error) as exc:
        raise BootstrapError(f"the bootstrap has lost its superblock: {exc}") from exc
    return {
        **fields,
        "attr_timeout": FOR_EVER,
        "entry_timeout": FOR_EVER,
        "is_chunk_dict": False,
        "root_inode": 0,
        "batch_size": 0,
    }


def _describe_v5(bootstrap: Bootstrap) -> dict[str, Any]:
    (
        magic,
        version,
        size,
        chunk_size,
        flags,
        inodes,
        inode_table,
        prefetch_table,
        blob_table,
        inode_entries,
        prefetch_entries,
        blob_table_size,
        extended_entries,
        extended_table,
    ) = _V5.unpack(bootstrap.read_file(0, _V5.size))
    return {
        "magic": magic,
        "version": version,
        "sb_size": size,
        "chunk_size": chunk_size,
        "inodes_count": inodes,
        "flags": {"bits": flags},
        "inode_table_entries": inode_entries,
        "inode_table_offset": inode_table,
        "blob_table_size": blob_table_size,
        "blob_table_offset": blob_table,
        "extended_blob_table_offset": extended_table,
        "extended_blob_table_entries": extended_entries,
        "blob_device_table_count": 0,
        "blob_device_table_offset": 0,
        "prefetch_table_offset": prefetch_table,
        "prefetch_table_entries": prefetch_entries,
        "meta_blkaddr": 0,
        "root_nid": 0,
        "chunk_table_offset": 0,
        "chunk_table_size": 0,
    }


def _describe_v6(bootstrap: Bootstrap) -> dict[str, Any]:
    magic, _, root_nid, meta_block, devices, slot_offset = _V6.unpack(
        bootstrap.read_file(_V6_OFFSET, _V6.size)
    )
    (
        flags,
        blob_table,
        blob_table_size,
        chunk_size,
        chunk_table,
        chunk_table_size,
        prefetch_table,
        prefetch_size,
    ) = _V6_EXTENDED.unpack(bootstrap.read_file(_V6_EXTENDED_OFFSET, _V6_EXTENDED.size))
    return {
        "magic": magic,
        "version": _V6_VERSION,
        "sb_size": 0,
        "chunk_size": chunk_size,
        "inodes_count": bootstrap.inodes_count,
        "flags": {"bits": flags},
        "inode_table_entries": 0,
        "inode_table_offset": 0,
        "blob_table_size": blob_table_size,
        "blob_table_offset": blob_table,
        "extended_blob_table_offset": 0,
        "extended_blob_table_entries": 0,
        "blob_device_table_count": devices,
        "blob_device_table_offset": slot_offset * _SLOT_UNIT,
        "prefetch_table_offset": prefetch_table,
        "prefetch_table_entries": prefetch_size // _INO_BYTES,
        "meta_blkaddr": meta_block,
        "root_nid": root_nid,
        "chunk_table_offset": chunk_table,
        "chunk_table_size": chunk_table_size,
    }
