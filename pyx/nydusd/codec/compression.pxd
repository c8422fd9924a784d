# Stored bytes to plain bytes and back: none, lz4_block, gzip, zstd.
from libc.stdint cimport uint8_t, uint32_t

# Numbers of nydusd.rafs.blobs.Compressor (the v6 blob table).
cdef enum:
    COMPRESSOR_NONE = 0
    COMPRESSOR_LZ4_BLOCK = 1
    COMPRESSOR_GZIP = 2
    COMPRESSOR_ZSTD = 3

# One chunk to be decoded: exactly plain_size bytes must come out.
cdef struct Piece:
    const uint8_t *stored   # borrowed
    size_t stored_size
    uint8_t *plain          # borrowed
    size_t plain_size
    int result              # 0, or -EIO: not a stream of exactly plain_size bytes

# 0, -EIO
cdef int decompress_lz4(const uint8_t *stored, size_t stored_size,
                        uint8_t *plain, size_t plain_size) noexcept nogil
# 0, -EIO, -ENOMEM
cdef int decompress_gzip(const uint8_t *stored, size_t stored_size,
                         uint8_t *plain, size_t plain_size) noexcept nogil
# Decode all of *pieces*, each with its own `result`; raises only for an unknown compressor and
# for want of memory. Gives up the GIL for the heavy part.
cdef int decompress_pieces(int compressor, Piece *pieces, uint32_t count) except -1
