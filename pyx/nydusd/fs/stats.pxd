# What is counted of one mount: operations, reads by size and by latency, and on request each file.
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    # in the order that clients know (spec: http-api, metrics)
    FOP_GETATTR = 0
    FOP_READLINK = 1
    FOP_OPEN = 2
    FOP_RELEASE = 3
    FOP_READ = 4
    FOP_STATFS = 5
    FOP_GETXATTR = 6
    FOP_LISTXATTR = 7
    FOP_OPENDIR = 8
    FOP_LOOKUP = 9
    FOP_READDIR = 10
    FOP_READDIRPLUS = 11
    FOP_ACCESS = 12
    FOP_FORGET = 13
    FOP_BATCH_FORGET = 14
    FOPS = 15
    SIZE_CLASSES = 8
    LATENCY_CLASSES = 8
    SHARDS = 4

# One thread in four counts here; padded to whole cache lines, so that processors do not share one.
cdef struct Shard:
    uint64_t hits[FOPS]         # atomic, all of them
    uint64_t errors[FOPS]
    uint64_t reads[SIZE_CLASSES * LATENCY_CLASSES]  # that succeeded
    uint64_t failed_reads[SIZE_CLASSES]
    uint64_t data_read          # bytes
    uint64_t read_ns            # of all reads together
    uint64_t padding[8]

cdef struct FileStats:
    uint64_t ino                # set once before it is published
    uint64_t hits[FOPS]         # atomic, all of them
    uint64_t errors[FOPS]
    uint64_t sizes[SIZE_CLASSES]
    uint64_t data_read
    int64_t first_read_ns       # since the epoch; 0 = never
    uint32_t read_lately        # since somebody asked last

cdef class FsStats:
    cdef readonly bint per_file         # counters of each file
    cdef readonly bint access_pattern   # when each file was first read
    cdef readonly bint latest_read      # which files were read lately
    cdef Shard *shards                  # owned; SHARDS
    # owned, and what they point to; atomic; NULL = free. An open-addressed table by ino.
    cdef FileStats **files
    cdef uint64_t files_room            # a power of two; 0 = no file is counted
    cdef uint64_t files_used            # atomic

    # Any thread, no lock. *rc*: what the operation ended with, 0 or -errno.
    cdef void count(self, unsigned int fop, uint64_t ino, int rc) noexcept nogil
    # *size* was asked for, *length* bytes were given, *nanoseconds* it took.
    cdef void count_read(self, uint64_t ino, uint64_t size, uint64_t length, int64_t nanoseconds,
                         int rc) noexcept nogil

    cdef FileStats *file_stats(self, uint64_t ino) noexcept nogil

cdef int64_t monotonic_ns() noexcept nogil
