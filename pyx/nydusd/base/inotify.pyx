"""To be told of changes of files that are open (inotify(7))."""

import os

from libc.errno cimport errno
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

cimport cython


cdef extern from "<sys/inotify.h>" nogil:
    struct inotify_event:
        int wd
    int inotify_init1(int)
    int inotify_add_watch(int, const char *, uint32_t)
    int inotify_rm_watch(int, int)
    int IN_NONBLOCK, IN_CLOEXEC, IN_MODIFY, IN_ATTRIB

cdef enum:
    EVENT_BYTES = 16        # without a name: what is watched is no directory
    BUFFER_BYTES = 4096


@cython.final
cdef class Watches:
    """What one inotify instance watches; `OSError` when the system has no more to give.

    `fd` is readable when something has happened. One thread reads, any thread adds and removes.
    """

    cdef readonly int fd

    def __cinit__(self):
        self.fd = -1
        self.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        self.close()

    def add(self, int fd):
        """Watch the file open as *fd* for changes of its bytes and attributes; a number for it."""
        cdef bytes path = b"/proc/self/fd/%d" % fd
        cdef int number = inotify_add_watch(self.fd, path, IN_MODIFY | IN_ATTRIB)
        if number < 0:
            raise OSError(errno, os.strerror(errno))
        return number

    def remove(self, int number):
        """Do not watch *number* any more; nothing happens when its file is gone already."""
        inotify_rm_watch(self.fd, number)

    def changed(self):
        """The numbers of the files that have changed since the last call; -1: any may have."""
        cdef set numbers = set()
        cdef inotify_event event
        cdef Py_ssize_t at
        while True:
            try:
                data = os.read(self.fd, BUFFER_BYTES)
            except BlockingIOError:
                return numbers
            for at in range(0, len(data) - EVENT_BYTES + 1, EVENT_BYTES):
                memcpy(&event, <const char *>data + at, sizeof(event.wd))
                numbers.add(event.wd)

    def close(self):
        """Watch nothing any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
