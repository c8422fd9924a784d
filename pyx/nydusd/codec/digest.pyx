"""Digests and checksums of plain bytes: blake3, sha256 (32 bytes each), CRC-32C.

blake3 and hashlib are imported at the first use; both give up the GIL for large input. Any thread.
"""

from libc.stdint cimport uint8_t, uint32_t

from nydusd.base.errors import UnsupportedError


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* Castagnoli, reflected; table for CPUs without the instruction (and for other machines). */
    static uint32_t crc32c_table[256];
    static int crc32c_hardware = 0;
    static void crc32c_prepare(void) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? (value >> 1) ^ 0x82f63b78u : value >> 1;
            crc32c_table[i] = value;
        }
    #if defined(__x86_64__)
        crc32c_hardware = __builtin_cpu_supports("sse4.2") != 0;
    #endif
    }
    static uint32_t crc32c_by_table(uint32_t crc, const uint8_t *p, size_t n) {
        while (n-- > 0)
            crc = (crc >> 8) ^ crc32c_table[(crc ^ *p++) & 0xff];
        return crc;
    }
    #if defined(__x86_64__)
    __attribute__((target("sse4.2")))
    static uint32_t crc32c_by_cpu(uint32_t crc, const uint8_t *p, size_t n) {
        uint64_t wide = crc;
        for (; n >= 8; n -= 8, p += 8) {
            uint64_t word;
            memcpy(&word, p, 8);
            wide = __builtin_ia32_crc32di(wide, word);
        }
        crc = (uint32_t)wide;
        while (n-- > 0)
            crc = __builtin_ia32_crc32qi(crc, *p++);
        return crc;
    }
    #endif
    static uint32_t crc32c_update(uint32_t crc, const uint8_t *p, size_t n, int by_table) {
    #if defined(__x86_64__)
        if (crc32c_hardware && !by_table)
            return crc32c_by_cpu(crc, p, n);
    #endif
        return crc32c_by_table(crc, p, n);
    }
    """
    void crc32c_prepare()
    uint32_t crc32c_update(uint32_t, const uint8_t *, size_t, int) noexcept nogil

crc32c_prepare()

# Numbers of nydusd.rafs.blobs.Digester (the v6 blob table).
cdef enum:
    DIGESTER_BLAKE3 = 0
    DIGESTER_SHA256 = 1


cdef uint32_t crc32c(uint32_t seed, const uint8_t *data, size_t size) noexcept nogil:
    return ~crc32c_update(~seed, data, size, 0)


def crc32c_of(const uint8_t[::1] data, bint by_table=False):
    """CRC-32C of *data*; *by_table* as on a CPU without an instruction for it."""
    cdef uint32_t crc = 0xffffffff
    cdef const uint8_t *start
    if data.shape[0] > 0:
        start = &data[0]
        with nogil:
            crc = crc32c_update(crc, start, data.shape[0], by_table)
    return crc ^ <uint32_t>0xffffffff


def digest_of(int digester, data):
    """The 32 bytes of *data*'s digest by *digester* (`rafs.blobs.Digester`)."""
    if digester == DIGESTER_BLAKE3:
        import blake3
        return blake3.blake3(data).digest()
    if digester == DIGESTER_SHA256:
        import hashlib
        return hashlib.sha256(data).digest()
    raise UnsupportedError(f"digester number {digester} is not known")


def hasher(int digester):
    """An object with `update(data)` and `digest()` for *digester*."""
    if digester == DIGESTER_BLAKE3:
        import blake3
        return blake3.blake3()
    if digester == DIGESTER_SHA256:
        import hashlib
        return hashlib.sha256()
    raise UnsupportedError(f"digester number {digester} is not known")
