"""Where libcurl puts one reply: the header block as a dict, the body straight into a buffer.

The transfer thread calls `take_header` for each line and `take_body` for each piece (libcurl hands
out 16 KiB at most) with the GIL held, which makes `detach` by any other thread atomic: after it
no byte is written any more. Compiled, because a 1 MiB body is 64 calls.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cimport cython

cdef enum:
    EXCUSE_BYTES = 2048     # kept of a body that is not what was asked for
    HEADERS_MAX = 128       # lines of one reply; libcurl bounds their bytes
    DIGITS_MAX = 20         # of a place in a blob


@cython.final
cdef class Reply:
    """The reply to a request for *size* bytes at *offset*, which are put into *buffer*.

    *buffer* None: the body is kept in memory, at most *size* bytes of it. *ranged*: the request
    asked for a range, so that only 206 (or a 200 whose beginning is of use) fills the buffer.
    *skip_max*: bytes of a 200 that may be read and thrown away to get to *offset*.
    """

    cdef Py_buffer view         # owned while `held`
    cdef bint held
    cdef bint judged            # the header block has been looked at
    cdef bint wanted            # the body is what was asked for
    cdef bint whole             # a 200 stands for the range: what comes after it is not wanted
    cdef bint detached
    cdef readonly bint complete     # all wanted bytes are here, though the body goes on
    cdef readonly int status        # of the last header block; 0: none yet
    cdef readonly dict headers      # lower-case name -> text
    cdef readonly str refusal       # why the body cannot be used, or ""
    cdef readonly uint64_t offset
    cdef readonly uint64_t size     # bytes that are wanted, or the limit of a body in memory
    cdef readonly uint64_t received     # bytes of them so far
    cdef readonly uint64_t arrived      # bytes of the body so far, kept or not
    cdef bytes kept
    cdef bint ranged
    cdef uint64_t skip, skip_max

    def __cinit__(self, buffer, uint64_t offset=0, uint64_t size=0, bint ranged=False,
                  uint64_t skip_max=0):
        self.held = False
        if buffer is not None:
            PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE)
            self.held = True
            size = self.view.len
        self.size = size
        self.offset = offset
        self.ranged = ranged
        self.skip_max = skip_max
        self.status = 0
        self.headers = {}
        self.kept = b""
        self.refusal = ""
        self.received = self.arrived = self.skip = 0
        self.judged = self.wanted = self.whole = self.detached = self.complete = False

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    @property
    def body(self):
        """What was kept of a body that did not go into a buffer."""
        return self.kept

    def detach(self):
        """Write nothing any more: the buffer is free for its owner."""
        self.detached = True
        if self.held:
            self.held = False
            PyBuffer_Release(&self.view)

    def take_header(self, bytes line):
        """One line of the header block; a status line begins a new one (after 1xx, a proxy's)."""
        cdef bytes name
        if line[:5] == b"HTTP/":
            words = line.split(None, 2)
            code = words[1] if len(words) > 1 else b""
            self.status = int(code) if len(code) == 3 and code.isdigit() else 0
            self.headers = {}
            return
        name, colon, value = line.partition(b":")
        if not colon or len(self.headers) >= HEADERS_MAX:
            return
        key = name.strip().decode("latin-1").lower()
        text = value.strip().decode("latin-1")
        before = self.headers.get(key)
        self.headers[key] = text if before is None else f"{before}, {text}"

    def take_body(self, bytes piece):
        """Keep *piece*; 0 for libcurl (which ends the transfer) when it may not or need not."""
        cdef uint64_t size = PyBytes_GET_SIZE(piece)
        cdef uint64_t start = 0
        if self.detached or self.complete:
            return 0
        self.arrived += size
        if not self.judged:
            self.judge()
        if self.refusal:
            return 0
        if not self.wanted:
            if <uint64_t>len(self.kept) < EXCUSE_BYTES:
                self.kept += piece[:EXCUSE_BYTES - len(self.kept)]
            # The connection can be used again when what is left is short.
            return size if self.arrived <= 16 * EXCUSE_BYTES else 0
        if self.skip:
            start = min(self.skip, size)
            self.skip -= start
        return self.store(piece, start, size)

    cdef object store(self, bytes piece, uint64_t start, uint64_t size):
        cdef uint64_t room = self.size - self.received
        cdef uint64_t n = size - start
        if n > room:
            if not self.whole:
                self.refusal = "more bytes than were asked for"
                return 0
            n = room
        if self.held:
            memcpy(<char *>self.view.buf + self.received, PyBytes_AS_STRING(piece) + start, n)
        else:
            self.kept += piece[start:start + n]
        self.received += n
        if self.whole and self.received == self.size:
            self.complete = True        # the rest of the blob is of no use: end it here
            return 0
        return size

    cdef judge(self):
        """Decide from the header block what the body is; `refusal` says why it cannot be used."""
        self.judged = True
        if not 200 <= self.status < 300:
            return
        if self.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            self.refusal = "an encoded body that nobody asked for"
            return
        if not self.ranged:
            self.wanted = True
            return
        if self.status == 206:
            self.judge_range()
        elif self.status == 200 and self.offset <= self.skip_max:
            self.wanted = self.whole = True
            self.skip = self.offset
        elif self.status == 200:
            self.refusal = "the whole blob instead of a range: ranges are not supported there"
        else:
            self.refusal = f"status {self.status} instead of a range"

    cdef judge_range(self):
        text = self.headers.get("content-range")
        if text is None:
            # Not by the rules, but servers do it: right only when the length is.
            if self.headers.get("content-length") == str(self.size):
                self.wanted = True
            else:
                self.refusal = "206 without a Content-Range"
            return
        unit, _, place = text.strip().partition(" ")
        span, _, _ = place.strip().partition("/")
        first, _, last = span.partition("-")
        if (unit.lower() != "bytes" or not (first.isdecimal() and last.isdecimal())
                or len(first) > DIGITS_MAX or len(last) > DIGITS_MAX):
            self.refusal = "a Content-Range that cannot be read"
        elif int(first) != self.offset:
            self.refusal = f"bytes at {int(first)} when those at {self.offset} were asked for"
        elif int(last) - int(first) + 1 > self.size:
            self.refusal = "more bytes than were asked for"
        else:
            self.wanted = True

    def finish(self):
        """Judge a reply that had no body at all."""
        if not self.judged:
            self.judge()
