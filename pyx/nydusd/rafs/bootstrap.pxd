# The face of a bootstrap, whatever its version: all that serving and building ask of it.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping

cdef enum:
    # ChunkSpan.flags
    SPAN_HOLE = 1           # zeros: no chunk stands behind it; only `length` is set
    SPAN_PLACED = 2         # the bootstrap tells the chunk's place (v5); else the CI array does
    SPAN_DIRECT = 4         # the blob file holds the bytes plain, at uncompressed_offset (tarfs)
    # ChunkSpan.chunk_flags, as stored (rafs-format: chunk record)
    CHUNK_COMPRESSED = 1
    CHUNK_HOLE = 2
    CHUNK_ENCRYPTED = 4
    CHUNK_BATCH = 8
    CHUNK_HAS_CRC = 0x10
    # spans of one read: 1 MiB + a page in chunks of 4 KiB, each with a hole before it
    SPAN_ROOM = 520

# What a read asks of one chunk.
cdef struct ChunkSpan:
    uint32_t flags
    uint32_t blob_index             # index in the blob table
    uint32_t chunk_index            # number of the chunk in its blob
    uint32_t offset                 # first wanted byte of the plain chunk
    uint32_t length                 # wanted bytes
    uint32_t uncompressed_size      # of the chunk: SPAN_PLACED; else 0
    uint64_t uncompressed_offset    # of the chunk in the plain blob: always set
    uint64_t compressed_offset      # SPAN_PLACED
    uint32_t compressed_size        # SPAN_PLACED
    uint32_t chunk_flags            # SPAN_PLACED
    uint32_t crc32                  # SPAN_PLACED and CHUNK_HAS_CRC
    const uint8_t *digest           # 32 bytes, borrowed from the bootstrap's mapping; NULL = none

# What a stat shows.
cdef struct Attributes:
    uint64_t ino
    uint64_t size           # bytes
    uint64_t blocks         # 512 bytes each
    int64_t mtime           # seconds; 0 is shown as the start of the daemon by fs
    uint32_t mtime_nsec
    uint32_t mode           # with type bits
    uint32_t nlink
    uint32_t uid
    uint32_t gid
    uint32_t rdev           # Linux 32-bit encoding; 0 unless a device
    int64_t atime           # seconds; no image has this one and those below: 0
    int64_t ctime
    uint32_t atime_nsec
    uint32_t ctime_nsec

# A place in a directory's listing. `cookie` 0 is the start; others are opaque to callers and stay
# valid for the life of the image.
cdef struct DirEntry:
    uint64_t ino
    uint64_t next_cookie    # of the entry after this one
    const char *name        # borrowed from the mapping; not NUL-terminated
    uint32_t name_len       # 1..255
    uint32_t kind           # S_IFMT bits >> 12, 0 = look at the inode

cdef struct XattrEntry:
    uint64_t next_cookie
    const char *prefix      # borrowed (static or mapping); the full name is prefix + name
    const char *name
    const uint8_t *value    # borrowed from the mapping
    uint32_t prefix_len
    uint32_t name_len
    uint32_t value_len

# What the chunks of one blob must stay within; all ones where the image does not tell.
cdef struct BlobLimit:
    uint32_t chunk_count
    uint64_t compressed_end     # bytes of the stored blob
    uint64_t uncompressed_end   # bytes of the plain blob, on a multiple of 4096

cdef class Bootstrap:
    cdef Mapping file
    cdef readonly int version               # 5 or 6
    cdef readonly uint64_t root_ino
    cdef readonly uint64_t flags            # superblock flags
    cdef readonly uint64_t inodes_count
    cdef readonly uint32_t chunk_size       # bytes
    cdef readonly list blobs                # BlobInfo, by blob index
    cdef readonly list prefetch_inos        # of the image's prefetch table, in its order
    cdef BlobLimit *limits                  # owned; by blob index
    cdef uint32_t limits_count
    cdef bint explicit_owner                # else every inode belongs to the daemon
    cdef uint32_t daemon_uid
    cdef uint32_t daemon_gid

    # *flags* and *blobs*, and what follows from them; limits begin with all ones
    cdef int begin(self, uint64_t flags, list blobs) except -1

    # All: 0 or -errno; -ENOENT no such inode or name, -EIO the image is broken there.
    cdef int attributes(self, uint64_t ino, Attributes *out) noexcept nogil
    cdef int lookup(self, uint64_t parent, const char *name, size_t name_len,
                    uint64_t *ino) noexcept nogil           # + -ENOTDIR, -ENAMETOOLONG
    # 1 = an entry, 0 = the end; "." and ".." included
    cdef int next_entry(self, uint64_t directory, uint64_t cookie, DirEntry *out) noexcept nogil
    # -EINVAL not a link, -ERANGE longer than room
    cdef int readlink(self, uint64_t ino, char *out, size_t room, size_t *length) noexcept nogil
    cdef int next_xattr(self, uint64_t ino, uint64_t cookie, XattrEntry *out) noexcept nogil
    # -ENODATA no such attribute
    cdef int xattr(self, uint64_t ino, const char *name, size_t name_len,
                   const uint8_t **value, size_t *length) noexcept nogil
    # Spans of [offset, offset + size) of a regular file, clamped to its size, in file order;
    # -EISDIR / -EINVAL not a regular file, -E2BIG more than room
    cdef int spans(self, uint64_t ino, uint64_t offset, uint64_t size, ChunkSpan *out,
                   uint32_t room, uint32_t *count) noexcept nogil
    # v5: whole-chunk spans that come after the read in its blob: the rest of the file, then of at
    # most 64 following inodes, while they are neighbours; v6: none (the CI array tells)
    cdef int following(self, uint64_t ino, uint64_t end, uint64_t limit_bytes, ChunkSpan *out,
                       uint32_t room, uint32_t *count) noexcept nogil
