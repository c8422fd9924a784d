"""What is wrong with one inode, for the walk of a check: words, and its attributes.

Bounded by the inode: no record and no attribute is followed elsewhere.
"""

from libc.stdint cimport uint32_t, uint64_t

from nydusd.rafs.bootstrap cimport Bootstrap, XattrEntry
from nydusd.rafs.names cimport NAME_MAX
from nydusd.rafs.ondisk_v5 cimport ChunkRecord, InodeV5
from nydusd.rafs.read_v5 cimport BootstrapV5, Record

from nydusd.build.node import shown

cdef enum:
    XATTR_VALUE_MAX = 65536     # bytes, of Linux
    XATTR_LIST_MAX = 65536      # bytes, all names with their zeros


cdef str record_fault(BootstrapV5 bootstrap, uint64_t index):
    """Why the record with *index* cannot be used."""
    cdef uint32_t stored = 0
    cdef const InodeV5 *inode
    if index == 0 or index > bootstrap.entries:
        return f"the inode table has {bootstrap.entries} rows"
    bootstrap.file.load_u32(bootstrap.inode_table + (index - 1) * sizeof(uint32_t), &stored)
    inode = <const InodeV5 *>bootstrap.file.at(<uint64_t>stored << 3, sizeof(InodeV5))
    if inode == NULL:
        return f"its record at {<uint64_t>stored << 3:#x} is not in the file"
    if inode.ino != index and inode.ino != 0 and inode.ino < index:
        return f"it is another name of inode {inode.ino}"
    if inode.ino != index:
        return f"it has the number {inode.ino} at index {index}"
    if inode.name_size == 0 or inode.name_size > NAME_MAX:
        return f"its name has {inode.name_size} bytes"
    return f"its record at {<uint64_t>stored << 3:#x} of mode {inode.mode:#o} is of no type " \
           "that there is, or its parts end behind the file"


cdef str chunk_fault(BootstrapV5 bootstrap, const Record *record, uint64_t number):
    """Why a chunk of a v5 file cannot be used."""
    cdef const ChunkRecord *chunk = <const ChunkRecord *>bootstrap.file.at(
        record.chunks + number * sizeof(ChunkRecord), sizeof(ChunkRecord))
    if chunk == NULL:
        return "its record is behind the file"
    if chunk.blob_index >= bootstrap.limits_count:
        return f"a chunk in blob {chunk.blob_index} of {bootstrap.limits_count}"
    if chunk.index >= bootstrap.limits[chunk.blob_index].chunk_count:
        return f"chunk {chunk.index} of a blob of " \
               f"{bootstrap.limits[chunk.blob_index].chunk_count} chunks"
    if chunk.uncompressed_size == 0 or chunk.uncompressed_size > bootstrap.chunk_size:
        return f"{chunk.uncompressed_size} bytes, chunks have {bootstrap.chunk_size}"
    return f"{chunk.compressed_size} bytes at {chunk.compressed_offset:#x} of the stored " \
           f"blob for {chunk.uncompressed_size} at {chunk.uncompressed_offset:#x} of the plain"


cdef list xattr_faults(Bootstrap bootstrap, uint64_t ino):
    """A line for each attribute that cannot be read, is told twice, or that Linux does not take."""
    cdef XattrEntry found
    cdef uint64_t cookie = 0
    cdef uint64_t together = 0
    cdef int rc
    lines = []
    keys = set()
    while True:
        rc = bootstrap.next_xattr(ino, cookie, &found)
        if rc < 0:
            lines.append(f"its extended attributes are broken {cookie} bytes in")
        if rc <= 0:
            return lines
        cookie = found.next_cookie
        key = found.prefix[:found.prefix_len] + found.name[:found.name_len]
        together += len(key) + 1
        if key in keys:
            lines.append(f"has attribute {shown(key)} twice")
        keys.add(key)
        if found.value_len > XATTR_VALUE_MAX:
            lines.append(f"attribute {shown(key)} has {found.value_len} bytes")
        if together > XATTR_LIST_MAX:
            lines.append(f"the names of its attributes have more than {XATTR_LIST_MAX} bytes")
            return lines
