"""Tables of a v5 bootstrap: superblock, blob table and its extension, prefetch table; checked.

All that opening an image reads: of the inode table only that it is there. `BootstrapError` names
the field that is not as it must be; for the checker all of them are told. Rules:
docs/formats/rafs-v5.md.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping
from nydusd.rafs.ondisk_v5 cimport (
    V5_ALIGNMENT, V5_MAGIC, V5_SUPERBLOCK_SIZE, V5_VERSION, BlobRecordV5, ExtBlobV5,
    SuperblockV5,
)

from nydusd.rafs.areas import Area, Demands, check_areas
from nydusd.rafs.blobs import (
    BlobInfo,
    algorithms_of_flags,
    check_chunk_size,
    data_size_v5,
    features_v5,
    parse_blob_id,
)
from nydusd.rafs.records import Tables

cdef enum:
    BLOBS_MAX = 1 << 16             # more rows than an image can have layers
    PREFETCH_MAX = 1 << 20          # more hints than this are not worth their memory
    INODES_MAX = 1 << 29            # inode offsets are below 4 GiB, in units of 8


cdef const SuperblockV5 *read_superblock(Mapping file, object demands) except NULL:
    """The superblock, its fields and the places of the tables checked."""
    cdef const SuperblockV5 *found = <const SuperblockV5 *>file.at(0, sizeof(SuperblockV5))
    demands.must(found != NULL and file.size > V5_SUPERBLOCK_SIZE,
                 f"its {file.size} bytes are no more than a superblock")
    demands.must(found.magic == V5_MAGIC, f"magic is {found.magic:#x}")
    demands.must(found.version == V5_VERSION, f"version is {found.version:#x}")
    demands.must(found.superblock_size == V5_SUPERBLOCK_SIZE,
                 f"superblock has {found.superblock_size} bytes")
    demands.attempt(check_chunk_size, 5, found.chunk_size)
    demands.check(0 < found.inode_table_entries < INODES_MAX,
                  f"inode table has {found.inode_table_entries} entries")
    # Builders of 2.2 leave the root out of the count: an empty directory has 0.
    demands.check(found.inodes_count <= found.inode_table_entries,
                  f"{found.inodes_count} inodes have {found.inode_table_entries} names")
    for offset in (found.inode_table_offset, found.prefetch_table_offset,
                   found.blob_table_offset, found.ext_blob_table_offset):
        demands.check(offset % V5_ALIGNMENT == 0, f"a table is at {offset}")
    check_areas(demands, [
        Area("inode table", found.inode_table_offset,
             found.inode_table_entries * <uint64_t>sizeof(uint32_t)),
        Area("prefetch table", found.prefetch_table_offset,
             found.prefetch_table_entries * <uint64_t>sizeof(uint32_t)),
        Area("blob table", found.blob_table_offset, found.blob_table_size),
        Area("extended blob table", found.ext_blob_table_offset,
             found.ext_blob_table_entries * sizeof(ExtBlobV5)),
    ], V5_SUPERBLOCK_SIZE, file.size)
    return found


cdef list read_blob_table(Mapping file, const SuperblockV5 *superblock, object demands):
    """Pairs of blob id (bytes) and bytes to fetch first."""
    cdef const uint8_t *raw
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t size = superblock.blob_table_size
    cdef Py_ssize_t end
    found = []
    if file.at(superblock.blob_table_offset, superblock.blob_table_size) == NULL:
        return found                # none, or told with the place of the table
    table = file.read(superblock.blob_table_offset, superblock.blob_table_size)
    raw = table
    while size - start > <Py_ssize_t>sizeof(BlobRecordV5):
        demands.must(len(found) < BLOBS_MAX, f"blob table has more than {BLOBS_MAX} blobs")
        readahead = (<const BlobRecordV5 *>(raw + start)).readahead_size
        start += sizeof(BlobRecordV5)
        end = table.find(b"\0", start)
        if end < 0:
            end = size
        found.append((table[start:end], readahead))
        start = min(end + 1, size)
    return found


cdef object read_blob(Mapping file, const SuperblockV5 *superblock, uint32_t index,
                      bytes blob_id, uint32_t readahead, object algorithms, object demands):
    """The `BlobInfo` of one record, before a file name gives it its real id; None after a fault."""
    cdef const ExtBlobV5 *extended
    cdef uint32_t chunk_count = 0
    cdef uint64_t compressed_size = 0
    cdef uint64_t uncompressed_size = 0
    features = features_v5(0)
    if index < superblock.ext_blob_table_entries:
        extended = <const ExtBlobV5 *>file.at(superblock.ext_blob_table_offset,
                                              (index + 1) * sizeof(ExtBlobV5))
        if extended == NULL:
            return None             # told with the place of the table
        extended += index
        chunk_count = extended.chunk_count
        compressed_size = extended.compressed_size
        uncompressed_size = extended.uncompressed_size
        features = features_v5(extended.features)
        demands.check(compressed_size >> 62 == 0 and uncompressed_size >> 62 == 0,
                      f"blob {index} has {compressed_size} bytes for {uncompressed_size}")
    text = demands.attempt(parse_blob_id, 5, index, blob_id)
    if demands.faults:
        return None
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


cdef object read_all(Mapping file, object demands):
    """The tables, which are of no use when the *demands* have kept a fault."""
    cdef const SuperblockV5 *superblock = read_superblock(file, demands)
    algorithms = demands.attempt(algorithms_of_flags, 5, superblock.flags)
    rows = read_blob_table(file, superblock, demands)
    demands.check(superblock.ext_blob_table_entries == 0
                  or superblock.ext_blob_table_entries >= len(rows),
                  f"extended blob table has {superblock.ext_blob_table_entries} entries for "
                  f"{len(rows)} blobs")
    blobs = [read_blob(file, superblock, index, blob_id, readahead, algorithms, demands)
             for index, (blob_id, readahead) in enumerate(rows)]
    if demands.faults:
        return None
    return Tables(blobs=blobs, prefetch_inos=read_prefetch(file, superblock),
                  digester=int(algorithms.digester))


def read_tables(Mapping file):
    """Blobs, prefetch table and digester of the v5 bootstrap in *file*, everything checked."""
    return read_all(file, Demands("v5"))


def table_faults(Mapping file):
    """A line for each fault of the tables of the v5 bootstrap in *file*."""
    return Demands.all_faults("v5", lambda demands: read_all(file, demands))
