# The mount table: which file system a node id belongs to.
#
# Node id: the slot's low byte in bits 63-56 and its high byte in bits 55-48 (so that slots below
# 256 are where the reference has them), the ino of the file system in the rest. Slot 0 is the
# pseudo directories. Node 1 is the root of what is mounted at "/", else the pseudo root.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from nydusd.fs.filesystem cimport Filesystem
from nydusd.fs.op cimport (
    AttrOp, ChangeOp, DirOp, LinkOp, LookupOp, OpenOp, ReadOp, StatfsOp, XattrOp,
)

cdef enum:
    NODE_ROOT = 1
    SLOTS = 65536
    DIRECTORIES = 1 << 20       # pseudo directories, fs/pseudo.py has the same limit

# One mounted file system. Never freed while the table lives, only used again: a reader may hold a
# pointer to it for the moment in which it finds out that the slot has changed.
cdef struct Mount:
    PyObject *filesystem        # owned by the table while the mount is in it or leaving
    PyObject *stats             # FsStats, borrowed from the file system; NULL: not counted
    uint64_t base               # the slot's bits of its node ids
    uint64_t root_ino
    int64_t in_flight           # atomic; requests inside the file system
    uint32_t slot
    bint keeps_no_cache         # the slot showed something else before: see Vfs.open
    Mount *next                 # of the free list

cdef class Vfs:
    cdef Mount **slots          # owned; SLOTS pointers, atomic; NULL = free
    # owned; slot mounted on a pseudo directory, by its ino; atomic; 0 = none
    cdef uint16_t *slot_at
    cdef Mount *free            # guarded by the GIL
    cdef uint32_t last_slot
    cdef uint32_t root_slot     # atomic; slot mounted at "/", 0 = pseudo
    cdef object pseudo          # PseudoFs
    cdef dict paths             # mountpoint -> slot
    # (address of a mount that waits for its last request, whom to tell)
    cdef list leaving
    cdef object listener

    # All: 0 or -errno, -ENOENT for a node of nothing mounted; OP_UNKNOWN as the file system says.
    cdef int lookup(self, LookupOp *op) noexcept nogil
    cdef int getattr(self, AttrOp *op) noexcept nogil
    cdef int readlink(self, LinkOp *op) noexcept nogil
    cdef int open(self, OpenOp *op) noexcept nogil
    cdef int release(self, OpenOp *op) noexcept nogil
    cdef int readdir(self, DirOp *op) noexcept nogil
    cdef int xattr(self, XattrOp *op) noexcept nogil
    cdef int statfs(self, StatfsOp *op) noexcept nogil
    # A read stays inside its file system (*mount*, NULL when it never entered) until `leave`: it
    # may end later, on another thread. It is counted just before its answer is sent, so that who
    # has the data finds it counted; *rc*: 0 or -errno.
    cdef int read(self, ReadOp *op, Mount **mount) noexcept nogil
    cdef void count_read(self, Mount *mount, const ReadOp *op, int rc) noexcept nogil
    cdef void leave(self, Mount *mount) noexcept nogil
    # -EXDEV when the two inodes of a change are in different mounts
    cdef int change(self, ChangeOp *op) noexcept nogil
    # The kernel has dropped *node_id* *count* times; *fop*: FOP_FORGET or FOP_BATCH_FORGET if this
    # one is to be counted, FOPS if not.
    cdef void forget(self, uint64_t node_id, uint64_t count, unsigned int fop) noexcept nogil

    cdef int done(self, Mount *mount, unsigned int fop, uint64_t ino, int rc) noexcept nogil

    cdef Mount *enter(self, uint64_t node_id, uint64_t *ino) noexcept nogil
    cdef Mount *enter_slot(self, uint32_t slot) noexcept nogil
    cdef int find_other(self, Mount *mount, ChangeOp *op) noexcept nogil
    cdef int cross(self, LookupOp *op, Mount *parent) noexcept nogil
    cdef Mount *take_free(self) except NULL
    cdef int put_free(self, Mount *mount) except -1
    cdef bint is_idle_within(self, Mount *mount, int64_t timeout_ms) noexcept nogil
    cdef int let_go(self, Mount *mount, object timeout, object on_gone) except -1
    cdef Mount *fresh(self, Filesystem filesystem, uint32_t slot) except NULL
    cdef int show(self, uint32_t directory, uint32_t slot) except -1

# again inside a file system that a read has entered
cdef int read_again(Mount *mount, ReadOp *op) noexcept nogil
cdef int fetch(Mount *mount, ReadOp *op) noexcept nogil
