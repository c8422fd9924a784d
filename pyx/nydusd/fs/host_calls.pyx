"""System calls on host files that Python lacks, or has for the whole process instead of a thread.

Any thread; each gives up the GIL while the kernel works. A failure is an `OSError`.
"""

import os

import cython
from libc.errno cimport EINVAL
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy


cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <linux/capability.h>
    #include <sched.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/fsuid.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    struct identity { uint32_t uid, gid, mask; };

    static __thread int has_own_mask = 0;

    /* What setfsuid takes from a thread that was root, without what strips set-group-id bits. */
    static void keep_capabilities(const struct __user_cap_data_struct *before)
    {
        struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
        struct __user_cap_data_struct now[2];
        memcpy(now, before, sizeof(now));
        now[0].effective &= ~(1u << CAP_FSETID);
        syscall(SYS_capset, &head, now);
    }

    static int become(uint32_t uid, uint32_t gid, struct identity *before)
    {
        struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
        struct __user_cap_data_struct had[2];
        if (!has_own_mask) {        /* the umask is the process's until a thread leaves it */
            if (unshare(CLONE_FS) != 0)
                return -errno;
            has_own_mask = 1;
        }
        before->uid = setfsuid(-1);
        before->gid = setfsgid(-1);
        if (before->gid != gid) {
            setfsgid(gid);
            if ((uint32_t)setfsgid(-1) != gid)
                return -EPERM;
        }
        if (before->uid != uid) {
            int has_any = syscall(SYS_capget, &head, had) == 0;
            setfsuid(uid);
            if ((uint32_t)setfsuid(-1) != uid) {
                setfsgid(before->gid);
                return -EPERM;
            }
            if (has_any)
                keep_capabilities(had);
        }
        before->mask = umask(0);
        return 0;
    }

    static void become_again(const struct identity *before)
    {
        umask(before->mask);
        setfsuid(before->uid);      /* the kernel gives the capabilities back */
        setfsgid(before->gid);
    }

    static int rename_flagged(int from, const char *name, int to, const char *new_name,
                              unsigned int flags)
    {
        return syscall(SYS_renameat2, from, name, to, new_name, flags) == 0 ? 0 : -errno;
    }

    static int set_time(const char *path, int64_t atime, long atime_nsec, int64_t mtime,
                        long mtime_nsec)
    {
        struct timespec times[2] = { { atime, atime_nsec }, { mtime, mtime_nsec } };
        return utimensat(AT_FDCWD, path, times, 0) == 0 ? 0 : -errno;
    }

    static int64_t list_some(int fd, void *buf, size_t size)
    {
        long n = syscall(SYS_getdents64, fd, buf, size);
        return n < 0 ? -errno : n;
    }

    /* handle_bytes and handle_type, then the handle itself */
    struct saved_handle { unsigned int size; int type; unsigned char bytes[MAX_HANDLE_SZ]; };

    static int handle_of_file(int fd, struct saved_handle *out)
    {
        int mount_id;
        out->size = MAX_HANDLE_SZ;
        return name_to_handle_at(fd, "", (struct file_handle *)out, &mount_id, AT_EMPTY_PATH) == 0
            ? (int)(8 + out->size) : -errno;
    }

    static int open_the_handle(int mount_fd, const void *saved, size_t size)
    {
        struct saved_handle handle;
        int fd;
        if (size < 8 || size > sizeof(handle))
            return -EINVAL;
        memcpy(&handle, saved, size);
        if (handle.size > size - 8)
            return -EINVAL;
        fd = open_by_handle_at(mount_fd, (struct file_handle *)&handle,
                               O_PATH | O_NOFOLLOW | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
    }

    static int device_of_file(int fd, unsigned int *major, unsigned int *minor)
    {
        struct statx found;
        if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &found) != 0)
            return -errno;
        *major = found.stx_dev_major;
        *minor = found.stx_dev_minor;
        return 0;
    }

    static int allocate_some(int fd, int mode, int64_t offset, int64_t length)
    {
        return fallocate(fd, mode, offset, length) == 0 ? 0 : -errno;
    }
    """
    struct identity:
        unsigned int uid
        unsigned int gid
        unsigned int mask
    int become(unsigned int uid, unsigned int gid, identity *before) noexcept nogil
    void become_again(const identity *before) noexcept nogil
    int rename_flagged(int, const char *, int, const char *, unsigned int) noexcept nogil
    int set_time(const char *, int64_t, long, int64_t, long) noexcept nogil
    int64_t list_some(int, void *, size_t) noexcept nogil
    int allocate_some(int, int, int64_t, int64_t) noexcept nogil
    struct saved_handle:
        pass
    int device_of_file(int, unsigned int *, unsigned int *) noexcept nogil
    int handle_of_file(int, saved_handle *) noexcept nogil
    int open_the_handle(int, const void *, size_t) noexcept nogil
    long UTIME_NOW_ "UTIME_NOW"
    long UTIME_OMIT_ "UTIME_OMIT"
    size_t strnlen(const char *, size_t) noexcept nogil

cdef enum:
    NANO = 1000000000
    LIST_BYTES = 32768
    # of struct linux_dirent64: ino (8), offset (8), length (2), kind (1), name
    DIRENT_LENGTH = 16
    DIRENT_KIND = 18
    DIRENT_NAME = 19


cdef object failure(int code):
    return OSError(-code, os.strerror(-code))


@cython.final
cdef class ActingAs:
    """Within it, what this thread makes on the host belongs to *uid* and *gid*, without a umask.

    What the thread may do stays as it was: whether the caller may has been found out before. To be
    used once, and not to be left by another thread. `PermissionError` where the daemon may not give
    files away.
    """

    cdef identity before
    cdef unsigned int uid
    cdef unsigned int gid

    def __cinit__(self, unsigned int uid, unsigned int gid):
        self.uid = uid
        self.gid = gid

    def __enter__(self):
        cdef int rc = become(self.uid, self.gid, &self.before)
        if rc != 0:
            raise failure(rc)

    def __exit__(self, *exc):
        become_again(&self.before)


def rename(int directory, bytes name not None, int new_directory, bytes new_name not None,
           unsigned int flags):
    """See renameat2(2)."""
    cdef const char *old = name
    cdef const char *new = new_name
    cdef int rc
    with nogil:
        rc = rename_flagged(directory, old, new_directory, new, flags)
    if rc != 0:
        raise failure(rc)


def set_times(bytes path not None, atime_ns, mtime_ns, now):
    """Set the times of *path*, ns since the epoch: None = as it is, *now* = the present."""
    cdef const char *name = path
    cdef int64_t seconds[2]
    cdef long nanoseconds[2]
    cdef int rc
    for i, wanted in enumerate((atime_ns, mtime_ns)):
        seconds[i] = 0
        if wanted is None:
            nanoseconds[i] = UTIME_OMIT_
        elif wanted == now:
            nanoseconds[i] = UTIME_NOW_
        else:
            seconds[i], nanoseconds[i] = divmod(wanted, NANO)
    with nogil:
        rc = set_time(name, seconds[0], nanoseconds[0], seconds[1], nanoseconds[1])
    if rc != 0:
        raise failure(rc)


def allocate(int fd, int mode, uint64_t offset, uint64_t length):
    """See fallocate(2)."""
    cdef int rc
    if offset > <uint64_t>1 << 62 or length > <uint64_t>1 << 62:
        raise failure(-EINVAL)
    with nogil:
        rc = allocate_some(fd, mode, <int64_t>offset, <int64_t>length)
    if rc != 0:
        raise failure(rc)


def device_of(int fd):
    """The device of *fd*, without asking whoever serves its file system."""
    cdef unsigned int major = 0, minor = 0
    cdef int rc
    with nogil:
        rc = device_of_file(fd, &major, &minor)
    if rc != 0:
        raise failure(rc)
    return os.makedev(major, minor)


def handle_of(int fd):
    """What names the inode of *fd* on its file system for ever, see name_to_handle_at(2)."""
    cdef saved_handle found
    cdef int size
    with nogil:
        size = handle_of_file(fd, &found)
    if size < 0:
        raise failure(size)
    return (<const char *>&found)[:size]


def open_handle(int mount_fd, bytes handle not None):
    """A descriptor (O_PATH) of the inode that *handle* names, on the file system of *mount_fd*.

    ESTALE when it is gone; EPERM without CAP_DAC_READ_SEARCH.
    """
    cdef const char *saved = handle
    cdef size_t size = len(handle)
    cdef int fd
    with nogil:
        fd = open_the_handle(mount_fd, saved, size)
    if fd < 0:
        raise failure(fd)
    return fd


def list_directory(int fd):
    """The next (name, inode, offset after it, kind) of the open directory *fd*; [] at its end.

    Names and kinds as getdents64(2) has them, "." and ".." among them. Offsets are the host's: a
    listing may go on at any of them (lseek), whatever is made or removed meanwhile.
    """
    cdef uint8_t *buf = <uint8_t *>malloc(LIST_BYTES)
    cdef uint64_t numbers[2]
    cdef uint16_t length = 0
    cdef int64_t got, at = 0
    cdef size_t name_len
    if buf == NULL:
        raise MemoryError
    found = []
    try:
        with nogil:
            got = list_some(fd, buf, LIST_BYTES)
        if got < 0:
            raise failure(<int>got)
        while at + DIRENT_NAME < got:
            memcpy(numbers, buf + at, sizeof(numbers))
            memcpy(&length, buf + at + DIRENT_LENGTH, sizeof(length))
            name_len = strnlen(<char *>buf + at + DIRENT_NAME, length - DIRENT_NAME)
            name = (<char *>buf + at + DIRENT_NAME)[:name_len]
            found.append((name, numbers[0], numbers[1], buf[at + DIRENT_KIND]))
            at += length
    finally:
        free(buf)
    return found
