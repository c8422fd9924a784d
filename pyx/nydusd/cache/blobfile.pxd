# The data file of one blob in the cache: mapped for hits, written by fetches.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.cache.resident cimport ResidentPages
from nydusd.cache.target cimport ReadTarget

cdef enum:
    BARRIER_FILES = 5

cdef class BlobFile:
    cdef readonly object path
    cdef readonly uint64_t size     # bytes, final from the start; 0 = not known, not mapped
    cdef int fd                     # owned; -1 when closed
    cdef uint8_t *base              # owned mapping, never touched by user space; NULL when empty
    cdef ResidentPages pages        # None when nothing is mapped
    cdef int writable               # atomic: fetches may keep their bytes here
    # atomic: pages [high, low) of 32 bits each that had no hole when somebody looked last
    cdef uint64_t solid
    cdef uint64_t blocks_seen       # at the last has_shrunk(); one thread
    cdef int unsynced               # atomic: kept since the last take_unsynced()
    cdef int stored                 # atomic: bytes were stored since `take_stored`
    cdef int barrier_due            # atomic: `barrier` has not been synced yet
    cdef int barrier[BARRIER_FILES]     # owned; -1 = none

    cdef int copy(self, uint64_t off, uint64_t n, ReadTarget *target) noexcept nogil
    cdef int fit(self) except -1
    cdef int map(self) except -1
    cdef void drop(self) noexcept

    # Append *n* bytes at *off* to *target*; 0, -EIO outside the file or no room in the target,
    # -ENODATA the file is shorter than it was or its disk does not give the bytes back (only with
    # copy_only: then it has been looked at)
    cdef int read(self, uint64_t off, uint64_t n, ReadTarget *target) noexcept nogil
    # exactly *n* bytes; 0, -ENODATA the file is shorter, -errno
    cdef int load(self, uint64_t off, uint8_t *out, uint64_t n) noexcept nogil
    # whether no part of [off, off + n) is a hole: what a set bit promises cannot be there else
    cdef bint holds(self, uint64_t off, uint64_t n) noexcept nogil
    cdef int pass_barrier(self) noexcept nogil
    # 0, -EROFS not to be written, -ENODATA somebody has cut it, -errno
    cdef int store(self, uint64_t off, const uint8_t *data, uint64_t n) noexcept nogil
    # Be the only one who has the file open until `let_in`; false: somebody else has it open too, or
    # the file system has no leases. Who opens it waits, the owner of the lease is told by SIGIO.
    cdef bint lock_out(self) noexcept nogil
    cdef void let_in(self) noexcept nogil
    # give the whole pages in [off, off + n) back to the disk
    cdef int punch(self, uint64_t off, uint64_t n) except -1
    cdef void stop_writing(self) noexcept nogil
