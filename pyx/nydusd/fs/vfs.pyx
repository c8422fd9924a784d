"""The mount table: turns a node id into a file system and an inode, and counts who is inside.

Requests come from the carrier's workers, many at a time, without the GIL and without a lock: a
request raises its mount's in-flight count and then looks whether the slot still points there.
Mounts are changed by one thread at a time (the control thread), which publishes a change with one
atomic store and waits for the count to fall to 0 before it lets go of a file system.
"""

import cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.errno cimport EIO, ENOENT, EXDEV
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport usleep

from nydusd.base.parking cimport monotonic_ms
from nydusd.fs.filesystem cimport Filesystem
from nydusd.fs.op cimport (
    OP_DONE, OP_UNKNOWN, AttrOp, ChangeOp, DirOp, LinkOp, LookupOp, OpenOp, ReadOp, StatfsOp,
    XattrOp,
)
from nydusd.fs.stats cimport (
    FOP_GETATTR, FOP_GETXATTR, FOP_LISTXATTR, FOP_LOOKUP, FOP_OPEN, FOP_OPENDIR, FOP_READDIR,
    FOP_READDIRPLUS, FOP_READLINK, FOP_RELEASE, FOP_STATFS, FOPS, FsStats, monotonic_ns,
)

from nydusd.base.errors import MountError
from nydusd.fs import pseudo
from nydusd.fs.pseudo import PseudoFs, split_path

cdef extern from *:
    """
    static inline void *slot_load(void *p)
        { return __atomic_load_n((void **)p, __ATOMIC_SEQ_CST); }
    static inline void slot_store(void *p, void *v)
        { __atomic_store_n((void **)p, v, __ATOMIC_SEQ_CST); }
    static inline void count_add(int64_t *p, int64_t n)
        { __atomic_fetch_add(p, n, __ATOMIC_SEQ_CST); }
    static inline int64_t count_load(int64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline uint32_t u32_load(uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void u32_store(uint32_t *p, uint32_t v)
        { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline uint16_t u16_load(uint16_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void u16_store(uint16_t *p, uint16_t v)
        { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    void *slot_load(void *) noexcept nogil
    void slot_store(void *, void *) noexcept nogil
    void count_add(int64_t *, int64_t) noexcept nogil
    int64_t count_load(int64_t *) noexcept nogil
    uint32_t u32_load(uint32_t *) noexcept nogil
    void u32_store(uint32_t *, uint32_t) noexcept nogil
    uint16_t u16_load(uint16_t *) noexcept nogil
    void u16_store(uint16_t *, uint16_t) noexcept nogil

cdef enum:
    NARROW_SLOTS = 255          # of one byte, without the pseudo directories

cdef uint64_t INO_MASK = (1ULL << 48) - 1

if pseudo.MAX_DIRECTORIES != DIRECTORIES:
    raise ImportError("the mount table and the pseudo directories disagree about their limit")


cdef inline uint64_t base_of(uint32_t slot) noexcept nogil:
    return (<uint64_t>(slot & 0xff) << 56) | (<uint64_t>(slot >> 8) << 48)


cdef inline uint32_t slot_of(uint64_t node_id) noexcept nogil:
    return <uint32_t>(node_id >> 56) | (<uint32_t>(node_id >> 48 & 0xff) << 8)


cdef int read_again(Mount *mount, ReadOp *op) noexcept nogil:
    return (<Filesystem>mount.filesystem).read(op)


cdef int fetch(Mount *mount, ReadOp *op) noexcept nogil:
    return (<Filesystem>mount.filesystem).fetch(op)


@cython.final
cdef class Vfs:
    """A mount table with nothing but the empty pseudo root."""

    def __cinit__(self):
        cdef Mount *mount
        self.slots = <Mount **>calloc(SLOTS, sizeof(Mount *))
        self.slot_at = <uint16_t *>calloc(DIRECTORIES, sizeof(uint16_t))
        if self.slots == NULL or self.slot_at == NULL:
            raise MemoryError
        self.paths = {}
        self.leaving = []
        self.pseudo = PseudoFs()
        mount = self.take_free()
        mount.filesystem = <PyObject *>self.pseudo
        Py_INCREF(self.pseudo)
        mount.root_ino = self.pseudo.root_ino
        self.slots[0] = mount

    def __dealloc__(self):
        cdef Mount *mount
        cdef int slot
        if self.slots != NULL:
            for slot in range(SLOTS):
                if self.slots[slot] != NULL:
                    Py_XDECREF(self.slots[slot].filesystem)
                    free(self.slots[slot])
            free(self.slots)
        while self.free != NULL:
            mount = self.free
            self.free = mount.next
            free(mount)
        free(self.slot_at)

    # ---------------------------------------------------------------- requests

    cdef Mount *enter_slot(self, uint32_t slot) noexcept nogil:
        """The mount of *slot*, with this request counted in it; NULL when there is none."""
        cdef Mount *mount
        while True:
            mount = <Mount *>slot_load(&self.slots[slot])
            if mount == NULL:
                return NULL
            count_add(&mount.in_flight, 1)
            if <Mount *>slot_load(&self.slots[slot]) == mount:
                return mount
            count_add(&mount.in_flight, -1)

    cdef Mount *enter(self, uint64_t node_id, uint64_t *ino) noexcept nogil:
        cdef Mount *mount
        if node_id == NODE_ROOT:
            mount = self.enter_slot(u32_load(&self.root_slot))
            if mount != NULL:
                ino[0] = mount.root_ino
            return mount
        ino[0] = node_id & INO_MASK
        return self.enter_slot(slot_of(node_id))

    cdef void leave(self, Mount *mount) noexcept nogil:
        if mount != NULL:
            count_add(&mount.in_flight, -1)

    cdef int done(self, Mount *mount, unsigned int fop, uint64_t ino, int rc) noexcept nogil:
        """Count an operation that ended with *rc*, and leave its mount; *rc* itself."""
        if mount.stats != NULL and rc != OP_UNKNOWN:
            (<FsStats>mount.stats).count(fop, ino, rc)
        self.leave(mount)
        return rc

    cdef int cross(self, LookupOp *op, Mount *parent) noexcept nogil:
        """Turn the pseudo directory that a lookup found into the root mounted on it, if any."""
        cdef AttrOp root
        cdef Mount *mount
        cdef int rc
        if op.attr.ino >= DIRECTORIES:
            return -EIO
        mount = self.enter_slot(u16_load(&self.slot_at[op.attr.ino]))
        if mount == NULL or mount == parent:
            self.leave(mount)
            op.child_id = op.attr.ino
            return OP_DONE
        root.node_id = mount.base | mount.root_ino
        root.ino = mount.root_ino
        rc = (<Filesystem>mount.filesystem).getattr(&root)
        op.attr = root.attr
        op.attr_valid = root.attr_valid
        op.child_id = op.attr.ino = root.node_id
        self.leave(mount)
        return rc

    cdef int lookup(self, LookupOp *op) noexcept nogil:
        cdef Mount *mount = self.enter(op.node_id, &op.ino)
        cdef int rc
        if mount == NULL:
            return -ENOENT
        rc = (<Filesystem>mount.filesystem).lookup(op)
        if rc == OP_DONE:
            if op.attr.ino == 0:
                op.child_id = 0
            elif mount.base == 0:
                rc = self.cross(op, mount)
            elif op.attr.ino > INO_MASK:
                rc = -EIO
            else:
                op.child_id = op.attr.ino = mount.base | op.attr.ino
        return self.done(mount, FOP_LOOKUP, op.ino, rc)

    cdef int getattr(self, AttrOp *op) noexcept nogil:
        cdef Mount *mount = self.enter(op.node_id, &op.ino)
        cdef int rc
        if mount == NULL:
            return -ENOENT
        rc = (<Filesystem>mount.filesystem).getattr(op)
        op.attr.ino |= mount.base
        return self.done(mount, FOP_GETATTR, op.ino, rc)

    cdef int readlink(self, LinkOp *op) noexcept nogil:
        cdef Mount *mount = self.enter(op.node_id, &op.ino)
        cdef int rc
        if mount == NULL:
            return -ENOENT
        rc = (<Filesystem>mount.filesystem).readlink(op)
        return self.done(mount, FOP_READLINK, op.ino, rc)

    cdef int open(self, OpenOp *op) noexcept nogil:
        cdef Mount *mount = self.enter(op.node_id, &op.ino)
        cdef int rc
        if mount == NULL:
            return -ENOENT
        rc = (<Filesystem>mount.filesystem).open(op)
        if mount.keeps_no_cache:
            # An inode that was held open while the slot was filled anew has pages of the old file.
            op.keep_cache = op.cache_dir = False
        return self.done(mount, FOP_OPENDIR if op.directory else FOP_OPEN, op.ino, rc)

    cdef int release(self, OpenOp *op) noexcept nogil:
        cdef Mount *mount = self.enter(op.node_id, &op.ino)
        cdef int rc
        if mount == NULL:
            return -ENOENT
        rc = (<Filesystem>mount.filesystem).release(op)
        if op.directory:        # nobody counts it
            self.leave(mount)
            return rc
        return self.done(mount, FOP_RELEASE, op.ino, rc)

    cdef int readdir(self, DirOp *op) noexcept nogil:
        cdef Mount *mount = self.enter(op.node_id, &op.ino)
        cdef int rc
        if mount == NULL:
            return -ENOENT
        op.node_base = mount.base
        rc = (<Filesystem>mount.filesystem).readdir(op)
        return self.done(mount, FOP_READDIRPLUS if op.plus else FOP_READDIR, op.ino, rc)

    cdef int xattr(self, XattrOp *op) noexcept nogil:
        cdef Mount *mount = self.enter(op.node_id, &op.ino)
        cdef int rc
        if mount == NULL:
            return -ENOENT
        rc = (<Filesystem>mount.filesystem).xattr(op)
        return self.done(mount, FOP_LISTXATTR if op.name == NULL else FOP_GETXATTR, op.ino, rc)

    cdef int statfs(self, StatfsOp *op) noexcept nogil:
        cdef Mount *mount = self.enter(op.node_id, &op.ino)
        cdef int rc
        if mount == NULL:
            return -ENOENT
        rc = (<Filesystem>mount.filesystem).statfs(op)
        return self.done(mount, FOP_STATFS, op.ino, rc)

    cdef int read(self, ReadOp *op, Mount **mount) noexcept nogil:
        mount[0] = self.enter(op.node_id, &op.ino)
        if mount[0] == NULL:
            return -ENOENT
        if mount[0].stats != NULL:
            op.began_ns = monotonic_ns()
        return (<Filesystem>mount[0].filesystem).read(op)

    cdef void count_read(self, Mount *mount, const ReadOp *op, int rc) noexcept nogil:
        if mount != NULL and mount.stats != NULL:
            (<FsStats>mount.stats).count_read(op.ino, op.size, op.target.length,
                                              monotonic_ns() - op.began_ns, rc)

    cdef int find_other(self, Mount *mount, ChangeOp *op) noexcept nogil:
        """Turn the second node of a change into an inode of *mount*: 0, -EXDEV."""
        cdef uint32_t slot = slot_of(op.other_id)
        op.other_ino = op.other_id & INO_MASK
        if op.other_id == NODE_ROOT:
            slot = u32_load(&self.root_slot)
            op.other_ino = mount.root_ino
        return OP_DONE if slot == mount.slot else -EXDEV

    cdef int change(self, ChangeOp *op) noexcept nogil:
        cdef Mount *mount = self.enter(op.node_id, &op.ino)
        cdef int rc = OP_DONE
        if mount == NULL:
            return -ENOENT
        if op.other_id != 0:
            rc = self.find_other(mount, op)
        if rc == OP_DONE:
            rc = (<Filesystem>mount.filesystem).change(op)
        if rc == OP_DONE and op.attr.ino != 0:
            if op.attr.ino > INO_MASK:
                rc = -EIO
            op.child_id = op.attr.ino = mount.base | op.attr.ino
        self.leave(mount)
        return rc

    cdef void forget(self, uint64_t node_id, uint64_t count, unsigned int fop) noexcept nogil:
        cdef uint64_t ino = 0
        cdef Mount *mount = self.enter(node_id, &ino)
        if mount == NULL:
            return
        if count > 0:
            (<Filesystem>mount.filesystem).forget_ino(ino, count)
        if fop < FOPS:
            self.done(mount, fop, ino, 0)
        else:
            self.leave(mount)

    # ---------------------------------------------------------------- mounts

    cdef Mount *take_free(self) except NULL:
        cdef Mount *mount = self.free
        if mount != NULL:
            self.free = mount.next
        else:
            mount = <Mount *>calloc(1, sizeof(Mount))
            if mount == NULL:
                raise MemoryError
        mount.next = NULL
        return mount

    cdef int put_free(self, Mount *mount) except -1:
        """Let go of the file system of an idle mount."""
        cdef PyObject *filesystem = mount.filesystem
        mount.filesystem = mount.stats = NULL
        mount.next = self.free
        self.free = mount
        Py_XDECREF(filesystem)
        return 0

    cdef bint is_idle_within(self, Mount *mount, int64_t timeout_ms) noexcept nogil:
        """Whether nobody is inside, after at most *timeout_ms*, -1 = wait as long as it takes."""
        cdef int64_t start = monotonic_ms()
        cdef unsigned int pause_us = 50
        while count_load(&mount.in_flight) != 0:
            if timeout_ms >= 0 and monotonic_ms() - start >= timeout_ms:
                return False
            usleep(pause_us)
            pause_us = min(pause_us * 2, 10000)
        return True

    cdef int let_go(self, Mount *mount, object timeout, object on_gone) except -1:
        """1 when the file system of an unpublished mount is gone, 0 when requests are inside."""
        cdef int64_t timeout_ms = -1 if timeout is None else <int64_t>(timeout * 1000)
        cdef bint is_idle
        with nogil:
            is_idle = self.is_idle_within(mount, timeout_ms)
        if not is_idle:
            self.leaving.append((<size_t>mount, on_gone))
            return 0
        self.put_free(mount)
        if on_gone is not None:
            on_gone()
        return 1

    def collect(self):
        """Let go of unmounted file systems whose last request has ended; how many still wait."""
        cdef Mount *mount
        for row in list(self.leaving):
            address, on_gone = row
            mount = <Mount *><size_t>address
            if count_load(&mount.in_flight) == 0:
                self.leaving.remove(row)
                self.put_free(mount)
                if on_gone is not None:
                    on_gone()
        return len(self.leaving)

    def free_slot(self):
        """The slot that the next mount gets: they are used in turn, not again at once.

        Those that the reference has too go first: while no more are in use, it can take the mounts
        over.
        """
        cdef uint32_t slot = self.last_slot
        for _ in range(NARROW_SLOTS):
            slot = slot % NARROW_SLOTS + 1
            if self.slots[slot] == NULL:
                return slot
        for slot in range(NARROW_SLOTS + 1, SLOTS):
            if self.slots[slot] == NULL:
                return slot
        raise MountError(f"maximum of {SLOTS - 1} mounts reached")

    def mount(self, Filesystem filesystem not None, str path not None, uint32_t slot=0):
        """Show *filesystem* at *path* and give its slot: *slot*, or the next one for 0.

        `MountError` when the path is taken or not absolute, or the slot is not free.
        """
        cdef Mount *mount
        names = split_path(path)
        path = normal(names)
        if path in self.paths:
            raise MountError(f"{path}: already mounted")
        self.collect()
        if slot == 0:
            slot = self.free_slot()
        elif slot >= SLOTS or self.slots[slot] != NULL:
            raise MountError(f"{path}: slot {slot} is taken or out of range")
        directory = self.pseudo.make(names)
        mount = self.fresh(filesystem, slot)
        self.last_slot = slot
        self.paths[path] = slot
        slot_store(&self.slots[slot], mount)
        self.show(directory, slot)
        return slot

    cdef Mount *fresh(self, Filesystem filesystem, uint32_t slot) except NULL:
        cdef Mount *mount = self.take_free()
        Py_INCREF(filesystem)
        mount.filesystem = <PyObject *>filesystem
        mount.stats = NULL if filesystem.stats is None else <PyObject *>filesystem.stats
        mount.root_ino = filesystem.root_ino
        mount.base = base_of(slot)
        mount.slot = slot
        mount.keeps_no_cache = False
        return mount

    cdef int show(self, uint32_t directory, uint32_t slot) except -1:
        """Publish *slot* (0 = nothing) on a pseudo directory and let the kernel look again."""
        if directory == NODE_ROOT:
            u32_store(&self.root_slot, slot)
        else:
            u16_store(&self.slot_at[directory], <uint16_t>slot)
        if self.listener is not None:
            parent, name = self.pseudo.place(directory)
            if directory != NODE_ROOT:
                self.listener(parent, name)
                return 0
            self.listener(NODE_ROOT, None)
            for hidden in self.pseudo.names(NODE_ROOT):
                self.listener(NODE_ROOT, hidden)
        return 0

    def umount(self, str path not None, timeout=None, on_gone=None):
        """Take away what is mounted at *path*; `MountError` when nothing is.

        Waits for the requests inside, at most *timeout* seconds. False: some are still inside, and
        the file system is let go of by a later `collect`. *on_gone* is called when it is, by the
        thread that let go of it.
        """
        cdef Mount *mount
        names = split_path(path)
        path = normal(names)
        slot = self.slot_of_path(path)
        mount = self.slots[slot]
        del self.paths[path]
        self.show(self.pseudo.make(names), 0)
        slot_store(&self.slots[slot], NULL)
        return self.let_go(mount, timeout, on_gone) == 1

    def remount(self, Filesystem filesystem not None, str path not None, timeout=None,
                on_gone=None):
        """Put *filesystem* into the slot of what is mounted at *path*; as `umount` for the old."""
        cdef Mount *mount
        cdef Mount *fresh
        names = split_path(path)
        slot = self.slot_of_path(normal(names))
        mount = self.slots[slot]
        fresh = self.fresh(filesystem, slot)
        fresh.keeps_no_cache = True
        slot_store(&self.slots[slot], fresh)
        self.show(self.pseudo.make(names), slot)
        return self.let_go(mount, timeout, on_gone) == 1

    def forget_root_names(self, names):
        """Have the kernel look again for *names* in the root.

        What is mounted at "/" has no name of its own that could be forgotten with all below.
        """
        if self.listener is not None:
            for name in names:
                self.listener(NODE_ROOT, name)

    def slot_of_path(self, str path not None):
        """The slot of what is mounted at exactly *path*; `MountError` when nothing is."""
        try:
            return self.paths[path]
        except KeyError:
            raise MountError(f"{path}: nothing is mounted there") from None

    def mounts(self):
        """Slots by mountpoint."""
        return dict(self.paths)

    def filesystem(self, str path not None):
        """What is mounted at *path*; `MountError` when nothing is."""
        return <object>self.slots[self.slot_of_path(normal(split_path(path)))].filesystem

    def in_flight(self, str path not None):
        """How many requests are inside what is mounted at *path*."""
        return count_load(&self.slots[self.slot_of_path(normal(split_path(path)))].in_flight)

    def on_change(self, listener):
        """Call *listener(node id of the parent, name)* after each change, (1, None) for the root.

        From the thread that changes the mounts: the kernel's memory of that name is to be dropped.
        """
        self.listener = listener

    def dump(self):
        """What a successor needs to keep the kernel's node ids: see `restore`."""
        return self.last_slot, self.pseudo.dump()

    def restore(self, state):
        """Take over the `dump` of another process, before anything is mounted."""
        self.last_slot, (next_ino, directories) = state
        self.pseudo.restore(next_ino, directories)


def normal(names):
    """The path that *names* make, as `Vfs.mounts` has it."""
    return "/" + "/".join([name.decode("utf-8", "surrogateescape") for name in names])
