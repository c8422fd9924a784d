"""Stored bytes to plain bytes and back: none, lz4_block, gzip (reading only), zstd.

Knows framings, not images (rafs-format: compression): every caller says how many plain bytes
must come out, and no stream can make more. lz4 and zlib are called in C; zstd goes through
python-zstandard, imported at the first use, whose contexts live one per thread. Any thread.
"""

import struct
import threading

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EIO, ENOMEM
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from nydusd.base.errors import BlobCorrupt, UnsupportedError


cdef extern from "<lz4.h>" nogil:
    int LZ4_decompress_safe(const char *, char *, int, int)
    int LZ4_compress_default(const char *, char *, int, int)
    int LZ4_compressBound(int)

cdef extern from "<zlib.h>" nogil:
    ctypedef struct z_stream:
        unsigned char *next_in
        unsigned int avail_in
        unsigned char *next_out
        unsigned int avail_out
    int inflateInit2(z_stream *, int)
    int inflate(z_stream *, int)
    int inflateEnd(z_stream *)
    int Z_OK, Z_STREAM_END, Z_NO_FLUSH, Z_MEM_ERROR

cdef extern from "<Python.h>":
    int PyBUF_READ, PyBUF_WRITE

cdef enum:
    GZIP_WINDOW_BITS = 31       # a gzip header, 32 KiB window (zlib: inflateInit2)
    INT_LIMIT = 0x7fffffff      # lengths of the C libraries are ints
    # From this size on a frame is streamed to its place; runs of smaller ones go to zstandard in
    # one call: 4 KiB frames decode 1.3x as fast joined, 16 KiB 1.05x, 64 KiB 0.98x.
    STREAM_BYTES = 1 << 16

ZSTD_LEVEL = 3      # the level of the reference's builder
# A frame that asks for more history than any builder's chunk can have is refused, not allocated.
ZSTD_WINDOW_LIMIT = 1 << 27

contexts = threading.local()    # .decompressor, .compressor: zstd's, not shared by threads


cdef int decompress_lz4(const uint8_t *stored, size_t stored_size,
                        uint8_t *plain, size_t plain_size) noexcept nogil:
    cdef int n
    if stored_size > INT_LIMIT or plain_size > INT_LIMIT:
        return -EIO
    n = LZ4_decompress_safe(<const char *>stored, <char *>plain, <int>stored_size,
                            <int>plain_size)
    return 0 if n >= 0 and <size_t>n == plain_size else -EIO


cdef int decompress_gzip(const uint8_t *stored, size_t stored_size,
                         uint8_t *plain, size_t plain_size) noexcept nogil:
    """Inflate the member at *stored* until *plain_size* bytes are out.

    The stored size of an eStargz chunk is an upper bound (rafs-format: other kinds), so what
    follows those bytes is not looked at.
    """
    cdef z_stream stream
    cdef int rc
    if stored_size > INT_LIMIT or plain_size > INT_LIMIT:
        return -EIO
    memset(&stream, 0, sizeof(stream))
    rc = inflateInit2(&stream, GZIP_WINDOW_BITS)
    if rc != Z_OK:
        return -ENOMEM if rc == Z_MEM_ERROR else -EIO
    stream.next_in = <unsigned char *>stored
    stream.avail_in = <unsigned int>stored_size
    stream.next_out = plain
    stream.avail_out = <unsigned int>plain_size
    rc = Z_OK
    while rc == Z_OK and stream.avail_out > 0:
        rc = inflate(&stream, Z_NO_FLUSH)
    inflateEnd(&stream)
    return 0 if stream.avail_out == 0 and (rc == Z_OK or rc == Z_STREAM_END) else -EIO


cdef int decompress_in_c(int compressor, Piece *piece) noexcept nogil:
    if piece.stored_size == 0 and piece.plain_size == 0:
        return 0        # empty input is never compressed
    if compressor == COMPRESSOR_LZ4_BLOCK:
        return decompress_lz4(piece.stored, piece.stored_size, piece.plain, piece.plain_size)
    if compressor == COMPRESSOR_GZIP:
        return decompress_gzip(piece.stored, piece.stored_size, piece.plain, piece.plain_size)
    if piece.stored_size != piece.plain_size:
        return -EIO
    memcpy(piece.plain, piece.stored, piece.plain_size)
    return 0


cdef object zstd_decompressor():
    """This thread's decompressor."""
    try:
        return contexts.decompressor
    except AttributeError:
        import zstandard
        contexts.decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_LIMIT)
        return contexts.decompressor


def warm_up():
    """Import zstandard and make this thread's context, so that no read waits for it (15 ms)."""
    zstd_decompressor()


cdef int stream_zstd(Piece *piece) except -1:
    """Decode one frame straight to its place; the frame's own content size is not believed."""
    import zstandard
    cdef object stored = PyMemoryView_FromMemory(
        <char *>piece.stored, piece.stored_size, PyBUF_READ)
    cdef object plain = PyMemoryView_FromMemory(<char *>piece.plain, piece.plain_size, PyBUF_WRITE)
    cdef size_t filled = 0
    cdef size_t n
    piece.result = -EIO
    try:
        with zstd_decompressor().stream_reader(stored) as reader:
            while filled < piece.plain_size:
                n = reader.readinto(plain[filled:])
                if n == 0:
                    return 0
                filled += n
            if not reader.read(1):      # one byte more would be a chunk of another size
                piece.result = 0
    except zstandard.ZstdError:
        return 0
    return 0


cdef bint join_zstd(Piece *pieces, uint32_t count) except -1:
    """Decode many small frames in one call, without the GIL; false when one of them is bad.

    Each output is allocated by our sizes, never by the frame's.
    """
    import zstandard
    cdef uint32_t i
    cdef Py_buffer view
    cdef list stored = []
    cdef list sizes = []
    for i in range(count):
        stored.append(PyMemoryView_FromMemory(
            <char *>pieces[i].stored, pieces[i].stored_size, PyBUF_READ))
        sizes.append(pieces[i].plain_size)
    try:
        segments = zstd_decompressor().multi_decompress_to_buffer(
            stored, decompressed_sizes=struct.pack(f"={count}Q", *sizes), threads=1)
    except zstandard.ZstdError:
        return False
    for i in range(count):
        pieces[i].result = -EIO
        PyObject_GetBuffer(segments[i], &view, PyBUF_SIMPLE)
        if <size_t>view.len == pieces[i].plain_size:
            memcpy(pieces[i].plain, view.buf, pieces[i].plain_size)
            pieces[i].result = 0
        PyBuffer_Release(&view)
    return True


cdef uint32_t small_run(Piece *pieces, uint32_t start, uint32_t count) noexcept nogil:
    """End of the run of small frames that begins at *start*; at least one piece."""
    cdef uint32_t end = start
    while end < count and 0 < pieces[end].plain_size < STREAM_BYTES and pieces[end].stored_size > 0:
        end += 1
    return end if end > start else start + 1


cdef int decompress_zstd(Piece *pieces, uint32_t count) except -1:
    """Runs of small frames joined, the others streamed; a bad frame spoils only itself."""
    cdef uint32_t start = 0
    cdef uint32_t end
    cdef uint32_t i
    while start < count:
        end = small_run(pieces, start, count)
        if end - start < 2 or not join_zstd(pieces + start, end - start):
            for i in range(start, end):
                stream_zstd(pieces + i)
        start = end
    return 0


cdef int decompress_pieces(int compressor, Piece *pieces, uint32_t count) except -1:
    cdef uint32_t i
    if compressor == COMPRESSOR_ZSTD:
        return decompress_zstd(pieces, count)
    if compressor not in (COMPRESSOR_NONE, COMPRESSOR_LZ4_BLOCK, COMPRESSOR_GZIP):
        raise UnsupportedError(f"compressor number {compressor} is not known")
    with nogil:
        for i in range(count):
            pieces[i].result = decompress_in_c(compressor, &pieces[i])
    return 0


def decompress_into(int compressor, const uint8_t[::1] stored, uint8_t[::1] plain):
    """Fill *plain* from *stored*; `BlobCorrupt` when not exactly that many bytes come out."""
    cdef Piece piece
    cdef uint8_t nothing = 0
    piece.stored = &stored[0] if stored.shape[0] > 0 else &nothing
    piece.stored_size = stored.shape[0]
    piece.plain = &plain[0] if plain.shape[0] > 0 else &nothing
    piece.plain_size = plain.shape[0]
    piece.result = 0
    decompress_pieces(compressor, &piece, 1)
    if piece.result == -ENOMEM:
        raise MemoryError
    if piece.result != 0:
        raise BlobCorrupt(
            f"{stored.shape[0]} stored bytes (compressor {compressor}) do not decode to "
            f"exactly {plain.shape[0]} bytes")


def decompress(int compressor, const uint8_t[::1] stored, size_t size):
    """The *size* plain bytes of *stored*; `BlobCorrupt` when it is not exactly that many."""
    plain = bytearray(size)
    decompress_into(compressor, stored, plain)
    return bytes(plain)


def decompress_many(int compressor, list stored, list sizes):
    """The plain bytes of each of *stored*, None where it is not exactly the size that is due.

    One call for many chunks: small zstd frames are decoded together.
    """
    cdef uint32_t count = len(stored)
    cdef list plain = [bytearray(size) for size in sizes]
    cdef Piece *pieces = <Piece *>calloc(count or 1, sizeof(Piece))
    cdef const uint8_t[::1] source
    cdef uint8_t[::1] target
    cdef uint8_t nothing = 0
    cdef uint32_t i
    if pieces == NULL:
        raise MemoryError
    try:
        for i in range(count):
            source = stored[i]
            target = plain[i]
            pieces[i].stored = &source[0] if source.shape[0] > 0 else &nothing
            pieces[i].stored_size = source.shape[0]
            pieces[i].plain = &target[0] if target.shape[0] > 0 else &nothing
            pieces[i].plain_size = target.shape[0]
        decompress_pieces(compressor, pieces, count)
        return [bytes(plain[i]) if pieces[i].result == 0 else None for i in range(count)]
    finally:
        free(pieces)


cdef bytes compress_lz4(const uint8_t[::1] plain):
    cdef int room
    cdef int n
    cdef bytes stored
    cdef char *target
    if plain.shape[0] > 0x7E000000:     # LZ4_MAX_INPUT_SIZE
        raise ValueError("lz4 takes at most 0x7e000000 bytes at a time")
    room = LZ4_compressBound(<int>plain.shape[0])
    stored = PyBytes_FromStringAndSize(NULL, room)
    target = PyBytes_AS_STRING(stored)
    with nogil:
        n = LZ4_compress_default(<const char *>&plain[0], target, <int>plain.shape[0], room)
    if n <= 0:
        raise MemoryError
    return stored[:n]


def compress(int compressor, const uint8_t[::1] plain):
    """*plain* as it would be stored; empty input gives empty output.

    May be longer than the input: storing the plain bytes instead is the caller's rule. zstd frames
    are of level 3. `UnsupportedError` for gzip, which is only read. Gives up the GIL.
    """
    if compressor == COMPRESSOR_NONE or plain.shape[0] == 0:
        return bytes(plain)
    if compressor == COMPRESSOR_LZ4_BLOCK:
        return compress_lz4(plain)
    if compressor != COMPRESSOR_ZSTD:
        raise UnsupportedError(f"compressor number {compressor} is not written, only read")
    try:
        compressor_of_thread = contexts.compressor
    except AttributeError:
        import zstandard
        compressor_of_thread = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        contexts.compressor = compressor_of_thread
    return compressor_of_thread.compress(plain)
