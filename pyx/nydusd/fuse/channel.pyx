"""The libfuse channel under an unchanged llfuse: where its worker threads read their requests.

llfuse binds `fuse_mount` and `fuse_unmount` by name. `expose` puts this module's before libfuse's,
so that llfuse gets a channel of ours: `receive` reads /dev/fuse and answers through the server
without the GIL, until the end. libfuse is told of a made-up INIT, and its answer to that goes
nowhere: the kernel's INIT is the server's business, and was another process's where the descriptor
is inherited. Workers can be had ready before they may read, and stand by until `release`. One
session at a time in a process.
"""

import os
import time

from libc.errno cimport EAGAIN, EINTR, ENOENT, ENOMEM, errno
from libc.signal cimport SIG_DFL, SIG_IGN, SIGUSR1
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport read as c_read

from nydusd.fs.op cimport iovec
from nydusd.fuse.reply cimport (
    ReplyPort, Room, free_room, new_room, noted_request, notify, send_to_device,
)
from nydusd.fuse.server cimport Server
from nydusd.fuse.wire cimport (
    FUSE_INIT, FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_RESEND, InHeader,
    InitIn, InvalEntryOut, InvalInodeOut,
)

from nydusd.base.errors import MountError, check


cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *, unsigned long, int)
    int POLLIN

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    ctypedef struct pthread_cond_t:
        pass
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *)
    int pthread_cond_timedwait(pthread_cond_t *, pthread_mutex_t *, const timespec *)
    int pthread_cond_signal(pthread_cond_t *)
    int pthread_cond_broadcast(pthread_cond_t *)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    struct sigaction_t "sigaction":
        void (*sa_handler)(int) noexcept nogil
        sigset_t sa_mask
        int sa_flags
    int sigaction(int, sigaction_t *, sigaction_t *)
    int sigemptyset(sigset_t *)
    int sigaddset(sigset_t *, int)
    int pthread_sigmask(int, sigset_t *, sigset_t *)
    int SIG_UNBLOCK

cdef extern from "<dlfcn.h>" nogil:
    ctypedef struct Dl_info:
        const char *dli_fname
    void *dlsym(void *, const char *)
    void *dlopen(const char *, int)
    int dladdr(const void *, Dl_info *)
    void *RTLD_DEFAULT
    int RTLD_NOW, RTLD_GLOBAL, RTLD_NOLOAD

# libfuse 2.9 (fuse_lowlevel.h), as far as a channel needs it.
cdef extern from *:
    """
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    typedef struct fuse_chan fuse_chan;
    typedef struct fuse_session fuse_session;
    struct fuse_args;
    struct iovec;
    struct fuse_chan_ops {
        int (*receive)(struct fuse_chan **, char *, size_t);
        int (*send)(struct fuse_chan *, const struct iovec *, size_t);
        void (*destroy)(struct fuse_chan *);
    };
    struct fuse_chan *fuse_chan_new(struct fuse_chan_ops *, int, size_t, void *);
    struct fuse_session *fuse_chan_session(struct fuse_chan *);
    void fuse_chan_destroy(struct fuse_chan *);
    void fuse_session_exit(struct fuse_session *);

    static pthread_mutex_t workers_lock = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
    static pthread_cond_t worker_left = PTHREAD_COND_INITIALIZER;
    static inline int my_tid(void) { return (int)syscall(SYS_gettid); }
    static inline void signal_thread(int tid, int number)
        { syscall(SYS_tgkill, (int)getpid(), tid, number); }
    static inline void name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }
    static inline int state_load(int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void state_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline int state_claim(int *p, int from, int to) {
        return __atomic_compare_exchange_n(p, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    ctypedef struct fuse_chan:
        pass
    ctypedef struct fuse_session:
        pass
    struct fuse_args:
        pass
    struct fuse_chan_ops:
        int (*receive)(fuse_chan **, char *, size_t) noexcept nogil
        int (*send)(fuse_chan *, const iovec *, size_t) noexcept nogil
        void (*destroy)(fuse_chan *) noexcept nogil
    fuse_chan *fuse_chan_new(fuse_chan_ops *, int, size_t, void *) nogil
    fuse_session *fuse_chan_session(fuse_chan *) nogil
    void fuse_chan_destroy(fuse_chan *) nogil
    void fuse_session_exit(fuse_session *) nogil
    pthread_mutex_t workers_lock
    pthread_cond_t released
    pthread_cond_t worker_left
    int my_tid() noexcept nogil
    void signal_thread(int tid, int number) noexcept nogil
    void name_thread(const char *) noexcept nogil
    int state_load(int *) noexcept nogil
    void state_store(int *, int) noexcept nogil
    int state_claim(int *, int, int) noexcept nogil

cdef enum:
    # A request with 1 MiB of data and its headers fits: the kernel refuses to fill less.
    REQUEST_BYTES = (1 << 20) + 8192
    LIBFUSE_MINOR = 19          # libfuse 2.9 knows no later protocol
    POLL_MS = 1000
    WORKERS_MAX = 1024          # as many as the command line allows

cdef uint64_t MADE_UP_UNIQUE = (1ULL << 62) + 1     # the kernel's are even

# One thread of llfuse that reads requests here.
cdef struct Worker:
    int tid
    Room *room              # owned
    Worker *next            # guarded by workers_lock

# The one session of the process.
cdef struct Session:
    ReplyPort port          # set once before start
    void *server            # borrowed from `the_server`
    int stopping            # atomic
    bint is_held            # guarded by workers_lock; nothing is read yet
    int end_code            # atomic; errno with which the kernel ended the connection
    int is_libfuse_told     # atomic; it has had its INIT
    Worker *workers         # guarded by workers_lock
    fuse_chan *channel      # libfuse's; NULL until llfuse has asked for it

cdef Session session
cdef fuse_chan_ops channel_ops
cdef Server the_server = None
cdef bint exposed = False


cdef void on_wake(int number) noexcept nogil:
    """Nothing to do: that the blocking read returns is all that the signal is for."""


cdef Worker *join_workers() noexcept nogil:
    """A record for this thread; NULL = no memory."""
    cdef sigset_t wake
    cdef Worker *worker = <Worker *>calloc(1, sizeof(Worker))
    if worker == NULL:
        return NULL
    worker.room = new_room()
    if worker.room == NULL:
        free(worker)
        return NULL
    sigemptyset(&wake)
    sigaddset(&wake, SIGUSR1)
    pthread_sigmask(SIG_UNBLOCK, &wake, NULL)
    name_thread(b"fuse_server")
    worker.tid = my_tid()
    pthread_mutex_lock(&workers_lock)
    worker.next = session.workers
    session.workers = worker
    pthread_mutex_unlock(&workers_lock)
    return worker


cdef void leave_workers(Worker *worker) noexcept nogil:
    cdef Worker **link = &session.workers
    pthread_mutex_lock(&workers_lock)
    while link[0] != NULL and link[0] != worker:
        link = &link[0].next
    if link[0] == worker:
        link[0] = worker.next
    pthread_cond_signal(&worker_left)
    pthread_mutex_unlock(&workers_lock)
    free_room(worker.room)
    free(worker)


cdef int make_up_init(char *buf) noexcept nogil:
    """An INIT that asks for nothing but the protocol, as if the kernel had sent it."""
    cdef InHeader *header = <InHeader *>buf
    cdef InitIn *asked = <InitIn *>(buf + sizeof(InHeader))
    memset(buf, 0, sizeof(InHeader) + sizeof(InitIn))
    header.len = sizeof(InHeader) + sizeof(InitIn)
    header.opcode = FUSE_INIT
    header.unique = MADE_UP_UNIQUE
    asked.major = 7
    asked.minor = LIBFUSE_MINOR
    return header.len


cdef int wait_for_requests() noexcept nogil:
    """Wait on a descriptor that somebody has made non-blocking."""
    cdef pollfd waited
    waited.fd = session.port.fd
    waited.events = POLLIN
    return poll(&waited, 1, POLL_MS)


cdef bint take_permit(Room *room) noexcept nogil:
    """Whether this worker may take requests now; false when a signal woke it."""
    if (<Server>session.server).permits is not None:
        if (<Server>session.server).permits.take() != 0:
            return False
    room.has_permit = True
    return True


cdef void give_permit(Room *room) noexcept nogil:
    if room.has_permit and (<Server>session.server).permits is not None:
        (<Server>session.server).permits.give()
    room.has_permit = False


cdef void stand_by() noexcept nogil:
    """Wait until requests may be read, or the end."""
    pthread_mutex_lock(&workers_lock)
    while session.is_held and not state_load(&session.stopping):
        pthread_cond_wait(&released, &workers_lock)
    pthread_mutex_unlock(&workers_lock)


cdef void serve_requests(Worker *worker, char *buf, size_t size) noexcept nogil:
    """Answer requests until the end."""
    cdef ssize_t n
    stand_by()
    while not state_load(&session.stopping):
        if not worker.room.has_permit and not take_permit(worker.room):
            continue
        n = c_read(session.port.fd, buf, size)
        if n >= 0:
            (<Server>session.server).serve(&session.port, worker.room, <uint8_t *>buf, n)
        elif errno == EAGAIN:
            wait_for_requests()
        elif errno != EINTR and errno != ENOENT:    # ENOENT: the request was taken back
            state_store(&session.end_code, errno)
            break
    give_permit(worker.room)


cdef int receive(fuse_chan **channel, char *buf, size_t size) noexcept nogil:
    """`fuse_chan_ops.receive`: libfuse's INIT once, and afterwards 0: the session is over."""
    cdef Worker *worker
    # Who carries the INIT away is no worker meanwhile: it may never come back, when others have
    # ended the session by then.
    if state_claim(&session.is_libfuse_told, 0, 1):
        return make_up_init(buf)
    worker = join_workers()
    if worker == NULL:
        state_store(&session.end_code, ENOMEM)
    else:
        serve_requests(worker, buf, size)
        leave_workers(worker)
    fuse_session_exit(fuse_chan_session(channel[0]))
    return 0


cdef int send(fuse_chan *channel, const iovec *iov, size_t count) noexcept nogil:
    """`fuse_chan_ops.send`: libfuse's answer to the made-up INIT is all that it ever has to say."""
    return 0


cdef void destroy(fuse_chan *channel) noexcept nogil:
    """`fuse_chan_ops.destroy`: the descriptor is not libfuse's."""
    session.channel = NULL


cdef public fuse_chan *fuse_mount(const char *mountpoint, fuse_args *args) noexcept nogil:
    channel_ops.receive = receive
    channel_ops.send = send
    channel_ops.destroy = destroy
    session.channel = fuse_chan_new(&channel_ops, session.port.fd, REQUEST_BYTES, NULL)
    return session.channel


cdef public void fuse_unmount(const char *mountpoint, fuse_chan *channel) noexcept nogil:
    if channel != NULL:
        fuse_chan_destroy(channel)


cdef str library_of(const void *address):
    cdef Dl_info info
    if address == NULL or dladdr(address, &info) == 0 or info.dli_fname == NULL:
        return "an unknown library"
    return os.fsdecode(info.dli_fname)


def expose():
    """Put our `fuse_mount` before libfuse's, for an llfuse that is imported afterwards.

    `MountError` when another library's is found first.
    """
    global exposed
    cdef void *found
    path = library_of(<void *>fuse_mount)
    if dlopen(os.fsencode(path), RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD) == NULL:
        raise MountError(f"{path} cannot be made visible to llfuse")
    found = dlsym(RTLD_DEFAULT, b"fuse_mount")
    if found != <void *>fuse_mount:
        raise MountError(
            f"llfuse would bind fuse_mount of {library_of(found)}: it must not be loaded before "
            "the daemon's own; see LD_PRELOAD")
    exposed = True


def is_exposed():
    """Whether `expose` has done its work in this process."""
    return exposed


def is_bound():
    """Whether llfuse has made its session over our channel and the libfuse that we use."""
    return session.channel != NULL and fuse_chan_session(session.channel) != NULL


def libfuse_path():
    """The file of the libfuse that we use."""
    return library_of(<void *>fuse_chan_new)


def open_session(int fd, Server server not None, *, bint held=False):
    """Make *fd*, borrowed, what the workers read and *server* what answers.

    *held*: they read nothing before `release`.
    """
    cdef sigaction_t wake
    cdef sigaction_t present
    global the_server
    if session.workers != NULL:
        raise MountError("a session's workers still run in this process")
    memset(&session, 0, sizeof(Session))
    session.port.fd = fd
    session.port.send = send_to_device
    session.is_held = held
    the_server = server
    session.server = <void *>server
    if sigaction(SIGUSR1, NULL, &present) == 0 and (
            present.sa_handler == SIG_DFL or present.sa_handler == SIG_IGN):
        memset(&wake, 0, sizeof(wake))      # no SA_RESTART: read must return
        wake.sa_handler = on_wake
        check(-errno if sigaction(SIGUSR1, &wake, NULL) != 0 else 0, "sigaction(SIGUSR1)")


cdef bint signal_workers(const timespec *until) noexcept nogil:
    """Wake every worker; whether all have left at the time *until* at the latest."""
    cdef Worker *worker
    cdef int rc = 0
    cdef bint is_empty
    pthread_mutex_lock(&workers_lock)
    pthread_cond_broadcast(&released)
    worker = session.workers
    while worker != NULL:
        signal_thread(worker.tid, SIGUSR1)
        worker = worker.next
    while session.workers != NULL and rc == 0:
        rc = pthread_cond_timedwait(&worker_left, &workers_lock, until)
    is_empty = session.workers == NULL
    pthread_mutex_unlock(&workers_lock)
    return is_empty


def release():
    """Let the workers of a held session read."""
    with nogil:
        pthread_mutex_lock(&workers_lock)
        session.is_held = False
        pthread_cond_broadcast(&released)
        pthread_mutex_unlock(&workers_lock)


def stop_workers(double timeout):
    """Make every worker finish what it serves and leave; whether all did within *timeout* seconds.

    A worker that had seen no order to stop just before it began to read would miss a single
    signal, so they are sent until it has left.
    """
    cdef timespec until
    cdef bint is_empty
    cdef int64_t pause_us = 200
    state_store(&session.stopping, 1)
    deadline = time.monotonic() + timeout
    while True:
        with nogil:
            clock_gettime(CLOCK_REALTIME, &until)
            until.tv_nsec += pause_us * 1000
            if until.tv_nsec >= 1000000000:
                until.tv_sec += 1
                until.tv_nsec -= 1000000000
            is_empty = signal_workers(&until)
        if is_empty:
            return True
        if time.monotonic() >= deadline:
            return False
        pause_us = min(pause_us * 2, 5000)


def in_flight():
    """(node id, opcode, unique, seconds since the epoch) of the requests that workers answer."""
    cdef uint64_t[4 * WORKERS_MAX] rows
    cdef Worker *worker
    cdef int count = 0, i
    with nogil:
        pthread_mutex_lock(&workers_lock)
        worker = session.workers
        while worker != NULL and count < WORKERS_MAX:
            i = 4 * count
            count += noted_request(worker.room, &rows[i + 2], &rows[i], &rows[i + 1],
                                   <int64_t *>&rows[i + 3])
            worker = worker.next
        pthread_mutex_unlock(&workers_lock)
    return [(rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]) for i in range(count)]


def end_code():
    """The errno with which the kernel ended the connection; 0 = it did not."""
    return state_load(&session.end_code)


def invalidate_entry(uint64_t parent, bytes name not None):
    """Let the kernel forget *name* in directory *parent* and all below; `-errno`, ENOENT is common.

    Never from a worker: the kernel may wait for requests in that directory.
    """
    cdef InvalEntryOut out
    cdef iovec parts[2]
    cdef const char *data = name
    cdef int rc
    out.parent = parent
    out.name_len = <uint32_t>len(name)
    out.flags = 0
    parts[0].iov_base = &out
    parts[0].iov_len = sizeof(InvalEntryOut)
    parts[1].iov_base = <void *>data
    parts[1].iov_len = out.name_len + 1     # with the NUL behind a bytes object
    with nogil:
        rc = notify(&session.port, FUSE_NOTIFY_INVAL_ENTRY, parts, 2)
    return rc


def invalidate_inode(uint64_t node_id):
    """Let the kernel forget attributes and data of *node_id*; `-errno`, ENOENT is common."""
    cdef InvalInodeOut out
    cdef iovec part
    cdef int rc
    out.node_id = node_id
    out.offset = out.length = 0
    part.iov_base = &out
    part.iov_len = sizeof(InvalInodeOut)
    with nogil:
        rc = notify(&session.port, FUSE_NOTIFY_INVAL_INODE, &part, 1)
    return rc


def ask_to_resend():
    """Have the kernel send again what a former owner took; `-errno` on kernels before 6.9."""
    cdef int rc
    with nogil:
        rc = notify(&session.port, FUSE_NOTIFY_RESEND, NULL, 0)
    return rc
