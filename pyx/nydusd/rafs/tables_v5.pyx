"""Tables of a v5 bootstrap: superblock, blob table and its extension, prefetch table; checked.

All that opening an image reads: of the inode table only that it is there. `BootstrapError` names
the field that is not as it must be. Rules: docs/formats/rafs-v5.md.
"""

from functools import partial

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping
from nydusd.rafs.ondisk_v5 cimport (
    V5_ALIGNMENT, V5_MAGIC, V5_SUPERBLOCK_SIZE, V5_VERSION, BlobRecordV5, ExtBlobV5,
    SuperblockV5,
)

from nydusd.rafs.areas import Area, check_areas, demand
from nydusd.rafs.blobs import (
    BlobInfo,
    algorithms_of_flags,
    check_chunk_size,
    data_size_v5,
    features_v5,
    parse_blob_id,
)
from nydusd.rafs.records import Tables

_check = partial(demand, "v5")

cdef enum:
    BLOBS_MAX = 1 << 16             # more rows than an image can have layers
    PREFETCH_MAX = 1 << 20          # more hints than this are not worth their memory
    INODES_MAX = 1 << 29            # inode offsets are below 4 GiB, in units of 8


cdef const SuperblockV5 *read_superblock(Mapping file) except NULL:
    """The superblock, its fields and the places of the tables checked."""
    cdef const SuperblockV5 *found = <const SuperblockV5 *>file.at(0, sizeof(SuperblockV5))
    _check(found != NULL and file.size > V5_SUPERBLOCK_SIZE,
           f"its {file.size} bytes are no more than a superblock")
    _check(found.magic == V5_MAGIC, f"magic is {found.magic:#x}")
    _check(found.version == V5_VERSION, f"version is {found.version:#x}")
    _check(found.superblock_size == V5_SUPERBLOCK_SIZE,
           f"superblock has {found.superblock_size} bytes")
    check_chunk_size(5, found.chunk_size)
    _check(0 < found.inode_table_entries < INODES_MAX,
           f"inode table has {found.inode_table_entries} entries")
    # Builders of 2.2 leave the root out of the count: an empty directory has 0.
    _check(found.inodes_count <= found.inode_table_entries,
           f"{found.inodes_count} inodes have {found.inode_table_entries} names")
    for offset in (found.inode_table_offset, found.prefetch_table_offset,
                   found.blob_table_offset, found.ext_blob_table_offset):
        _check(offset % V5_ALIGNMENT == 0, f"a table is at {offset}")
    check_areas("v5", [
        Area("inode table", found.inode_table_offset, found.inode_table_entries * 4),
        Area("prefetch table", found.prefetch_table_offset, found.prefetch_table_entries * 4),
        Area("blob table", found.blob_table_offset, found.blob_table_size),
        Area("extended blob table", found.ext_blob_table_offset,
             found.ext_blob_table_entries * sizeof(ExtBlobV5)),
    ], V5_SUPERBLOCK_SIZE, file.size)
    return found


cdef list read_blob_table(bytes table):
    """Pairs of blob id (bytes) and bytes to fetch first, from the blob table's bytes."""
    cdef const uint8_t *raw = table
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t size = len(table)
    cdef Py_ssize_t end
    found = []
    while size - start > <Py_ssize_t>sizeof(BlobRecordV5):
        _check(len(found) < BLOBS_MAX, f"blob table has more than {BLOBS_MAX} blobs")
        readahead = (<const BlobRecordV5 *>(raw + start)).readahead_size
        start += sizeof(BlobRecordV5)
        end = table.find(b"\0", start)
        if end < 0:
            end = size
        found.append((table[start:end], readahead))
        start = min(end + 1, size)
    return found


cdef object read_blob(Mapping file, const SuperblockV5 *superblock, uint32_t index,
                      bytes blob_id, uint32_t readahead):
    """The `BlobInfo` of one record, before a file name gives it its real id."""
    cdef const ExtBlobV5 *extended
    cdef uint32_t chunk_count = 0
    cdef uint64_t compressed_size = 0
    cdef uint64_t uncompressed_size = 0
    features = features_v5(0)
    if superblock.ext_blob_table_entries:
        extended = <const ExtBlobV5 *>file.at(
            superblock.ext_blob_table_offset + index * sizeof(ExtBlobV5), sizeof(ExtBlobV5))
        _check(extended != NULL, "extended blob table is cut")
        chunk_count = extended.chunk_count
        compressed_size = extended.compressed_size
        uncompressed_size = extended.uncompressed_size
        features = features_v5(extended.features)
        _check(compressed_size >> 62 == 0 and uncompressed_size >> 62 == 0,
               f"blob {index} has {compressed_size} bytes for {uncompressed_size}")
    algorithms = algorithms_of_flags(5, superblock.flags)
    text = parse_blob_id(5, index, blob_id)
    return BlobInfo(
        blob_index=index,
        blob_id=text,
        meta_blob_id=text,
        chunk_size=superblock.chunk_size,
        chunk_count=chunk_count,
        compressor=algorithms.compressor,
        digester=algorithms.digester,
        features=features,
        compressed_size=compressed_size,
        data_size=data_size_v5(features, compressed_size),
        uncompressed_size=uncompressed_size,
        has_chunk_map=chunk_count != 0,
        prefetch_size=readahead,
        version=5,
    )


cdef list read_prefetch(Mapping file, const SuperblockV5 *superblock):
    """Inode numbers of the prefetch table, up to its first zero."""
    cdef uint32_t count = min(superblock.prefetch_table_entries, <uint32_t>PREFETCH_MAX)
    cdef const uint8_t *table = file.at(superblock.prefetch_table_offset,
                                        count * sizeof(uint32_t))
    cdef uint32_t i, ino
    found = []
    if table == NULL:
        return found
    for i in range(count):
        ino = (<const uint32_t *>table)[i]
        if ino == 0:
            break
        found.append(ino)
    return found


def read_tables(Mapping file):
    """Blobs, prefetch table and digester of the v5 bootstrap in *file*, everything checked."""
    cdef const SuperblockV5 *superblock = read_superblock(file)
    algorithms = algorithms_of_flags(5, superblock.flags)
    rows = read_blob_table(file.read(superblock.blob_table_offset, superblock.blob_table_size)
                           if superblock.blob_table_size else b"")
    _check(superblock.ext_blob_table_entries == 0
           or superblock.ext_blob_table_entries >= len(rows),
           f"extended blob table has {superblock.ext_blob_table_entries} entries for "
           f"{len(rows)} blobs")
    return Tables(
        blobs=[read_blob(file, superblock, index, blob_id, readahead)
               for index, (blob_id, readahead) in enumerate(rows)],
        prefetch_inos=read_prefetch(file, superblock),
        digester=int(algorithms.digester),
    )
