"""zstd for blob meta and inlined bootstraps, in the bytes that the reference's builder makes.

zstd 1.5.7 splits blocks in another way than its predecessors, so frames of more than one block
(128 KiB) differ, and with them the id of a blob that is otherwise equal to the reference's. The
system's libzstd, where there is one, is asked for the old way; python-zstandard has no switch
for it. Frames are valid either way: without libzstd only the equality is lost
(tests/build/test_meta_compression.py).
"""

import functools
from typing import TYPE_CHECKING, Final

from nydusd.codec.compression import ZSTD_LEVEL, compress
from nydusd.rafs.blobs import Compressor

if TYPE_CHECKING:
    import ctypes

BLOCK_BYTES: Final = 128 << 10
PARAMETER_LEVEL: Final = 100  # ZSTD_c_compressionLevel
PARAMETER_SPLIT: Final = 1017  # ZSTD_c_blockSplitterLevel: 1 = no split before compression
SPLITTING_VERSION: Final = 10507  # the first that splits


@functools.cache
def library() -> "ctypes.CDLL | None":
    """The system's libzstd, or None."""
    import ctypes

    try:
        zstd = ctypes.CDLL("libzstd.so.1")
        zstd.ZSTD_createCCtx.restype = ctypes.c_void_p
        zstd.ZSTD_freeCCtx.argtypes = [ctypes.c_void_p]
        zstd.ZSTD_CCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        zstd.ZSTD_CCtx_setParameter.restype = ctypes.c_size_t
        zstd.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
        zstd.ZSTD_compressBound.restype = ctypes.c_size_t
        zstd.ZSTD_compress2.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_char_p,
            ctypes.c_size_t,
        ]
        zstd.ZSTD_compress2.restype = ctypes.c_size_t
        zstd.ZSTD_isError.argtypes = [ctypes.c_size_t]
    except (OSError, AttributeError):
        return None
    return zstd


def unsplit_frame(plain: bytes) -> bytes | None:
    """*plain* as one zstd frame without split blocks; None where the library cannot do it."""
    zstd = library()
    if zstd is None:
        return None
    import ctypes

    context = zstd.ZSTD_createCCtx()
    if not context:
        return None
    try:
        zstd.ZSTD_CCtx_setParameter(context, PARAMETER_LEVEL, ZSTD_LEVEL)
        if zstd.ZSTD_versionNumber() >= SPLITTING_VERSION and zstd.ZSTD_isError(
            zstd.ZSTD_CCtx_setParameter(context, PARAMETER_SPLIT, 1)
        ):
            return None
        room = ctypes.create_string_buffer(zstd.ZSTD_compressBound(len(plain)))
        size = zstd.ZSTD_compress2(context, room, len(room), plain, len(plain))
        return None if zstd.ZSTD_isError(size) else room.raw[:size]
    finally:
        zstd.ZSTD_freeCCtx(context)


def compress_meta(compressor: Compressor, plain: bytes) -> tuple[Compressor, bytes]:
    """*plain* as it is stored and how: not compressed when that would not make it smaller."""
    if compressor == Compressor.NONE or not plain:
        return Compressor.NONE, plain
    stored = None
    if compressor == Compressor.ZSTD and len(plain) > BLOCK_BYTES:
        stored = unsplit_frame(plain)
    if stored is None:
        stored = compress(int(compressor), plain)
    return (compressor, stored) if len(stored) < len(plain) else (Compressor.NONE, plain)
