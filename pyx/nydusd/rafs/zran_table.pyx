"""The contexts of a zran blob: where its gzip stream can be entered, and with what history.

The table lies behind the chunk entries of the blob's CI array, the dictionaries behind the table
(rafs-format: ZRAN). A context is checked when it is used. Any thread, no GIL.
"""

cimport cython
from libc.errno cimport EINVAL, EIO
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping
from nydusd.codec.zran cimport GzipEntry, inflate_from
from nydusd.rafs.ondisk_blob cimport ZranContext

from nydusd.base.record import NamedTuple

from nydusd.base.errors import BlobCorrupt, check


cdef enum:
    OUT_BYTES_MAX = 1 << 24                 # (rafs-format: ZRAN)
    IN_BYTES_MAX = (1 << 24) + (1 << 20)    # deflate and gzip add far less to what does not shrink
    DICTIONARY_BYTES_MAX = 1 << 15
    # No compressor makes data longer by more than a thousandth; a stretch that is all empty blocks
    # would take a second for each MiB to inflate, at no output.
    IN_BYTES_FREE = 1 << 16
    LEAD_BITS_MASK = 7


class Stretch(NamedTuple):
    """One context, for Python; terms: `ZranStretch`."""

    in_offset: int
    in_size: int
    out_size: int
    dictionary: bytes
    lead_byte: int
    lead_bits: int


@cython.final
cdef class ZranTable:
    """*count* contexts at *offset* of *file*, with their dictionaries *size* bytes.

    *compressed_end*: bytes of the gzip file. `BlobCorrupt` when the table is not all there.
    """

    def __cinit__(self, Mapping file, uint64_t offset, uint64_t size, uint32_t count,
                  uint64_t compressed_end):
        cdef uint64_t contexts = <uint64_t>count * sizeof(ZranContext)
        if contexts > size or file.at(offset, size) == NULL:
            raise BlobCorrupt(f"a table of {count} zran contexts does not fit into {size} bytes "
                              f"at {offset} of {file.size}")
        self.file = file
        self.offset = offset
        self.dictionaries = offset + contexts
        self.dictionaries_size = size - contexts
        self.compressed_end = compressed_end
        self.count = count

    cdef int stretch(self, uint32_t index, ZranStretch *out) noexcept nogil:
        cdef const ZranContext *found
        if index >= self.count:
            return -EINVAL
        found = <const ZranContext *>self.file.at(
            self.offset + <uint64_t>index * sizeof(ZranContext), sizeof(ZranContext))
        if found == NULL:
            return -EIO
        out.in_offset = found.in_offset
        out.in_size = found.in_len
        out.out_size = found.out_len
        out.dictionary_size = found.dict_size
        out.lead_byte = found.ctx_byte
        out.lead_bits = found.ctx_bits & LEAD_BITS_MASK
        if (out.in_size == 0 or out.in_size > IN_BYTES_MAX
                or out.in_size > IN_BYTES_FREE + out.out_size + <uint64_t>out.out_size // 4
                or out.in_offset > self.compressed_end
                or out.in_size > self.compressed_end - out.in_offset
                or out.out_size == 0 or out.out_size > OUT_BYTES_MAX
                or out.dictionary_size > DICTIONARY_BYTES_MAX
                or found.dict_offset > self.dictionaries_size
                or out.dictionary_size > self.dictionaries_size - found.dict_offset):
            return -EIO
        out.dictionary_offset = self.dictionaries + found.dict_offset
        out.dictionary = self.file.at(out.dictionary_offset, out.dictionary_size)
        return -EIO if self.file.is_damaged() else 0

    cdef int inflate(self, uint32_t index, const uint8_t *stored, size_t stored_size,
                     uint8_t *plain, size_t plain_size) noexcept nogil:
        cdef ZranStretch found
        cdef GzipEntry entry
        cdef int rc = self.stretch(index, &found)
        if rc != 0:
            return rc
        if found.in_size != stored_size or found.out_size != plain_size:
            return -EIO
        entry.stored = stored
        entry.stored_size = stored_size
        entry.dictionary = found.dictionary
        entry.dictionary_size = found.dictionary_size
        entry.lead_byte = found.lead_byte
        entry.lead_bits = found.lead_bits
        rc = inflate_from(&entry, plain, plain_size)
        # Dictionaries are most of the table, 32 KiB for a MiB of data, and each is used once.
        self.file.rest(found.dictionary_offset, found.dictionary_size)
        return -EIO if self.file.is_damaged() else rc

    def at(self, uint32_t index):
        """Context *index*; `OSError(EINVAL)` past the last, `OSError(EIO)` for a broken one."""
        cdef ZranStretch found
        check(self.stretch(index, &found), "zran context %d of %d", index, self.count)
        return Stretch(found.in_offset, found.in_size, found.out_size,
                       self.file.read(found.dictionary_offset, found.dictionary_size),
                       found.lead_byte, found.lead_bits)
