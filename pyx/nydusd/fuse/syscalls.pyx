"""mount(2) and umount2(2), which Python's standard library does not have."""

import os

from libc.errno cimport errno

from nydusd.base.errors import check


cdef extern from "<sys/mount.h>" nogil:
    int c_mount "mount"(const char *, const char *, const char *, unsigned long, const void *)
    int c_umount2 "umount2"(const char *, int)
    unsigned long C_MS_RDONLY "MS_RDONLY"
    unsigned long C_MS_NOSUID "MS_NOSUID"
    unsigned long C_MS_NODEV "MS_NODEV"
    unsigned long C_MS_NOATIME "MS_NOATIME"
    int C_MNT_DETACH "MNT_DETACH"

MS_RDONLY = C_MS_RDONLY
MS_NOSUID = C_MS_NOSUID
MS_NODEV = C_MS_NODEV
MS_NOATIME = C_MS_NOATIME
MNT_DETACH = C_MNT_DETACH


def mount(str source not None, path, str kind not None, unsigned long flags, str data not None):
    """Mount *source* of type *kind* at *path*; `OSError`."""
    cdef bytes c_source = source.encode()
    cdef bytes c_path = os.fsencode(path)
    cdef bytes c_kind = kind.encode()
    cdef bytes c_data = data.encode()
    cdef const char *where = c_path
    cdef const char *what = c_source
    cdef const char *of_kind = c_kind
    cdef const char *options = c_data
    cdef int rc
    with nogil:
        rc = c_mount(what, where, of_kind, flags, options)
    check(-errno if rc != 0 else 0, "mount of %s at %s", source, path)


def umount(path, int flags):
    """Unmount *path*; `OSError`."""
    cdef bytes c_path = os.fsencode(path)
    cdef const char *where = c_path
    cdef int rc
    with nogil:
        rc = c_umount2(where, flags)
    check(-errno if rc != 0 else 0, "umount of %s", path)
