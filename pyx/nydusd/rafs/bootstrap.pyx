"""A bootstrap, whatever its version: the file system tree of an image and where its data lies.

`Bootstrap` is the face that `read_v5` and `read_v6` fill in. Its C methods answer requests of the
kernel from any number of threads without the GIL; they trust nothing in the file, do a bounded
amount of work and touch no memory outside the mapping. The Python methods say the same in records,
for the checker, the hints and tests; none recurses, and a broken image is an `OSError` with EIO.
"""

import os

from libc.errno cimport E2BIG, ENODATA, ENOSYS
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memset

from nydusd.rafs.names cimport KIND_DIRECTORY, KIND_SHIFT

from nydusd.base.errors import BootstrapError, check
from nydusd.rafs.blobs import SuperblockFlag
from nydusd.rafs.records import Entry, Span, Stat, Walked

cdef enum:
    TARGET_ROOM = 1 << 16   # longest link target that is told to Python callers, bytes
    SPANS_AT_A_TIME = 256


cdef object span_record(const ChunkSpan *span):
    """A copy of *span* that Python can keep."""
    digest = None if span.digest == NULL else (<const char *>span.digest)[:32]
    return Span(
        span.flags, span.blob_index, span.chunk_index, span.offset, span.length,
        span.uncompressed_size, span.uncompressed_offset, span.compressed_offset,
        span.compressed_size, span.chunk_flags, span.crc32, digest,
    )


cdef class Bootstrap:
    """One image's metadata. Readers subclass it; the methods here refuse every request."""

    cdef int begin(self, uint64_t flags, list blobs) except -1:
        self.flags = flags
        self.explicit_owner = bool(flags & SuperblockFlag.EXPLICIT_UID_GID)
        self.daemon_uid = os.geteuid()
        self.daemon_gid = os.getegid()
        self.blobs = blobs
        self.limits_count = len(blobs)
        if self.limits_count:
            self.limits = <BlobLimit *>malloc(self.limits_count * sizeof(BlobLimit))
            if self.limits == NULL:
                raise MemoryError
            memset(self.limits, 0xff, self.limits_count * sizeof(BlobLimit))
        return 0

    def __dealloc__(self):
        free(self.limits)

    cdef int attributes(self, uint64_t ino, Attributes *out) noexcept nogil:
        return -ENOSYS

    cdef int lookup(self, uint64_t parent, const char *name, size_t name_len,
                    uint64_t *ino) noexcept nogil:
        return -ENOSYS

    cdef int next_entry(self, uint64_t directory, uint64_t cookie, DirEntry *out) noexcept nogil:
        return -ENOSYS

    cdef int readlink(self, uint64_t ino, char *out, size_t room, size_t *length) noexcept nogil:
        return -ENOSYS

    cdef int next_xattr(self, uint64_t ino, uint64_t cookie, XattrEntry *out) noexcept nogil:
        return -ENOSYS

    cdef int xattr(self, uint64_t ino, const char *name, size_t name_len,
                   const uint8_t **value, size_t *length) noexcept nogil:
        cdef XattrEntry entry
        cdef uint64_t cookie = 0
        cdef int rc
        while True:     # each step moves on in an area that is part of the file
            rc = self.next_xattr(ino, cookie, &entry)
            if rc <= 0:
                return rc if rc < 0 else -ENODATA
            if name_len == <size_t>entry.prefix_len + entry.name_len \
                    and memcmp(name, entry.prefix, entry.prefix_len) == 0 \
                    and memcmp(name + entry.prefix_len, entry.name, entry.name_len) == 0:
                value[0] = entry.value
                length[0] = entry.value_len
                return 0
            cookie = entry.next_cookie

    cdef int spans(self, uint64_t ino, uint64_t offset, uint64_t size, ChunkSpan *out,
                   uint32_t room, uint32_t *count) noexcept nogil:
        return -ENOSYS

    cdef int following(self, uint64_t ino, uint64_t end, uint64_t limit_bytes, ChunkSpan *out,
                       uint32_t room, uint32_t *count) noexcept nogil:
        count[0] = 0
        return 0

    def read_file(self, uint64_t off, size_t n):
        """*n* bytes of the bootstrap at *off*; `OSError` past its end."""
        return self.file.read(off, n)

    def stat(self, uint64_t ino):
        """Attributes of *ino*."""
        cdef Attributes got
        check(self.attributes(ino, &got), "attributes of inode %d", ino)
        return Stat(got.ino, got.size, got.blocks, got.mtime, got.mtime_nsec, got.mode,
                    got.nlink, got.uid, got.gid, got.rdev)

    def child(self, uint64_t parent, bytes name):
        """The inode number that *name* has in the directory *parent*; ENOENT, ENOTDIR."""
        cdef uint64_t ino = 0
        check(self.lookup(parent, name, len(name), &ino), "%r in directory %d", name, parent)
        return ino

    def find(self, bytes path):
        """The inode number of an absolute *path*; symlinks on the way are not followed."""
        ino = self.root_ino
        for name in path.split(b"/"):
            if name:
                ino = self.child(ino, name)
        return ino

    def iter_entries(self, uint64_t directory):
        """Names of *directory* one by one, `.` and `..` included, in the image's order."""
        cdef DirEntry entry
        cdef uint64_t cookie = 0
        cdef int rc
        while True:
            rc = self.next_entry(directory, cookie, &entry)
            check(rc, "listing of directory %d", directory)
            if rc == 0:
                return
            cookie = entry.next_cookie
            yield Entry(entry.name[:entry.name_len], entry.ino, entry.kind)

    def entries(self, uint64_t directory):
        """All names of *directory* in a list; see `iter_entries`."""
        return list(self.iter_entries(directory))

    def target(self, uint64_t ino):
        """What the symlink *ino* points to; EINVAL when it is none."""
        cdef size_t length = 0
        buf = bytearray(TARGET_ROOM)
        cdef char *room = buf
        check(self.readlink(ino, room, TARGET_ROOM, &length), "target of inode %d", ino)
        return bytes(buf[:length])

    def xattrs(self, uint64_t ino):
        """Extended attributes of *ino*: full name to value."""
        cdef XattrEntry entry
        cdef uint64_t cookie = 0
        cdef int rc
        found = {}
        while True:
            rc = self.next_xattr(ino, cookie, &entry)
            check(rc, "extended attributes of inode %d", ino)
            if rc == 0:
                return found
            cookie = entry.next_cookie
            name = entry.prefix[:entry.prefix_len] + entry.name[:entry.name_len]
            found[name] = (<const char *>entry.value)[:entry.value_len]

    def xattr_value(self, uint64_t ino, bytes name):
        """The value of attribute *name*; ENODATA when *ino* has none of that name."""
        cdef const uint8_t *value = NULL
        cdef size_t length = 0
        check(self.xattr(ino, name, len(name), &value, &length), "%r of inode %d", name, ino)
        return (<const char *>value)[:length] if length else b""

    def chunk_spans(self, uint64_t ino, uint64_t offset=0, size=None):
        """Spans of [*offset*, *offset* + *size*) of a regular file, in file order, as they come.

        Up to the end of the file when *size* is None.
        """
        cdef ChunkSpan found[SPANS_AT_A_TIME]
        cdef uint32_t count = 0
        cdef uint32_t i
        cdef uint64_t step, piece, beyond
        cdef uint64_t file_size = self.stat(ino).size
        cdef uint64_t left = 0
        cdef int rc
        if offset < file_size:
            left = file_size - offset if size is None else min(size, file_size - offset)
        check(self.spans(ino, offset, 0, found, SPANS_AT_A_TIME, &count), "chunks of inode %d", ino)
        step = <uint64_t>self.chunk_size * (SPANS_AT_A_TIME // 2)
        while left:
            piece = min(step, left)
            beyond = (offset + piece) % self.chunk_size
            if beyond < piece < left:       # stop between two chunks
                piece -= beyond
            rc = self.spans(ino, offset, piece, found, SPANS_AT_A_TIME, &count)
            if rc == -E2BIG and step > 1:   # holes, or chunks smaller than most
                step //= 2
                continue
            check(rc, "chunks of inode %d at %d", ino, offset)
            records = [span_record(&found[i]) for i in range(count)]
            yield from records
            offset += piece
            left -= piece

    def following_spans(self, uint64_t ino, uint64_t end, uint64_t limit_bytes):
        """Whole chunks that lie in the blob behind a read of *ino* that stopped at *end*."""
        cdef ChunkSpan found[SPANS_AT_A_TIME]
        cdef uint32_t count = 0
        cdef uint32_t i
        check(self.following(ino, end, limit_bytes, found, SPANS_AT_A_TIME, &count),
              "chunks behind inode %d", ino)
        return [span_record(&found[i]) for i in range(count)]

    def walk(self, bytes path=b"/"):
        """Everything at and below *path*; see `walk_inode`."""
        return self.walk_inode(self.find(path), b"/" + path.strip(b"/"))

    def walk_inode(self, uint64_t ino, bytes path=b"/"):
        """Inode *ino* as *path* and all below it: parents before children, siblings in order.

        Keeps one iterator for each open directory and the numbers of all directories met: one
        that is met twice is a `BootstrapError`, since a tree has none.
        """
        yield Walked(path, ino)
        if self.stat(ino).mode >> KIND_SHIFT != KIND_DIRECTORY:
            return
        seen = {ino}
        open_directories = [(path.rstrip(b"/"), self.iter_entries(ino))]
        while open_directories:
            prefix, names = open_directories[len(open_directories) - 1]
            for name, number, kind in names:
                if name in (b".", b".."):
                    continue
                child = prefix + b"/" + name
                yield Walked(child, number)
                if (kind or self.stat(number).mode >> KIND_SHIFT) == KIND_DIRECTORY:
                    if number in seen:
                        raise BootstrapError(
                            f"directory inode {number} has two places in the tree, the second is "
                            f"{child!r}: the bootstrap is corrupt, build the image again"
                        )
                    seen.add(number)
                    open_directories.append((child, self.iter_entries(number)))
                    break
            else:
                open_directories.pop()
