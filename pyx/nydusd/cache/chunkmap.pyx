"""Which chunks of a blob are on local disk: ready bits and claims.

Ready bits live in a file that several daemons map shared (rafs-format: chunk map); a set bit says
that the bytes are in the data file already, and is never cleared there. Claims are of this
process: one fetch a chunk, whoever else wants it waits on `counter` (base.parking) with a limit.
Every bit is read and set with atomics, nothing locks; any thread. The mapping is guarded: when
somebody cuts the file, this process goes on with bits of its own and nothing ready.
"""

import os
import struct

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cimport cython

from nydusd.base.mapping cimport Mapping
from nydusd.base.parking cimport raise_and_resume

from nydusd.base.errors import CacheError


cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    int madvise(void *, size_t, int)
    void *MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MADV_DONTNEED

cdef extern from *:
    """
    static inline uint8_t bits_load(const uint8_t *p)
        { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline uint8_t bits_or(uint8_t *p, uint8_t mask)
        { return __atomic_fetch_or(p, mask, __ATOMIC_ACQ_REL); }
    static inline void bits_clear(uint8_t *p, uint8_t mask)
        { __atomic_fetch_and(p, (uint8_t)~mask, __ATOMIC_ACQ_REL); }
    static inline uint8_t *pointer_load(uint8_t **p)
        { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline int pointer_swap(uint8_t **p, uint8_t *seen, uint8_t *new)
        { return __atomic_compare_exchange_n(p, &seen, new, 0, __ATOMIC_ACQ_REL,
                                             __ATOMIC_ACQUIRE); }
    static inline int flag_load(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void flag_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    uint8_t bits_load(const uint8_t *) noexcept nogil
    uint8_t bits_or(uint8_t *, uint8_t) noexcept nogil
    void bits_clear(uint8_t *, uint8_t) noexcept nogil
    uint8_t *pointer_load(uint8_t **) noexcept nogil
    int pointer_swap(uint8_t **, uint8_t *, uint8_t *) noexcept nogil
    int flag_load(const int *) noexcept nogil
    void flag_store(int *, int) noexcept nogil

HEADER_BYTES = 4096
MAGIC = 0x424D4150
VERSION = 1
MAGIC2 = 0x434D4150
ALL_READY = 0x4D4D4150
BLOCK_BYTES = 1 << 16   # read at a time: a hostile image may ask for a map of 512 MiB
HEADER = struct.Struct("<4I")


cdef uint8_t *reserve(size_t size) noexcept nogil:
    """*size* zero bytes that cost memory only where they are touched; NULL."""
    cdef void *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    return NULL if base == MAP_FAILED else <uint8_t *>base


def bitmap_bytes(uint32_t count):
    """Bytes of the bits of *count* chunks."""
    return (<uint64_t>count + 7) // 8


@cython.final
cdef class ChunkMap:
    """Bits of *count* chunks, of this process alone; `open_chunk_map` makes one in a file."""

    def __cinit__(self, uint32_t count, Mapping file=None, bint all_ready=False):
        self.bits = NULL
        self.own = NULL
        self.claims = NULL
        self.count = count
        self.own_size = bitmap_bytes(count) or 1
        self.file = file
        self.all_ready = all_ready
        self.counter = 0
        self.claims = reserve(self.own_size)
        if self.claims == NULL:
            raise MemoryError
        if file is not None:
            if file.at(HEADER_BYTES, bitmap_bytes(count)) == NULL:
                raise ValueError("the mapping is shorter than the chunk map")
            self.bits = file.base + <size_t>HEADER_BYTES
        else:
            self.own = reserve(self.own_size)
            if self.own == NULL:
                raise MemoryError
            self.bits = self.own

    def __dealloc__(self):
        if self.own != NULL:
            munmap(self.own, self.own_size)
        if self.claims != NULL:
            munmap(self.claims, self.own_size)

    cdef bint is_ready(self, uint32_t index) noexcept nogil:
        cdef uint8_t *bits
        cdef bint ready
        if index >= self.count:
            return False
        if flag_load(&self.all_ready):
            return True
        bits = pointer_load(&self.bits)
        ready = bits_load(bits + (index >> 3)) & (0x80 >> (index & 7)) != 0
        if bits != self.own and self.file.is_damaged():
            self.distrust()
            return False
        return ready

    cdef bint is_claimed(self, uint32_t index) noexcept nogil:
        if index >= self.count:
            return False
        return bits_load(self.claims + (index >> 3)) & (0x80 >> (index & 7)) != 0

    cdef void set_ready(self, uint32_t index) noexcept nogil:
        if index < self.count:
            bits_or(pointer_load(&self.bits) + (index >> 3), 0x80 >> (index & 7))

    cdef bint claim(self, uint32_t index) noexcept nogil:
        cdef uint8_t mask = 0x80 >> (index & 7)
        if index >= self.count:
            return False
        return bits_or(self.claims + (index >> 3), mask) & mask == 0

    cdef void release(self, uint32_t index) noexcept nogil:
        if index < self.count:
            bits_clear(self.claims + (index >> 3), 0x80 >> (index & 7))

    cdef void wake(self) noexcept nogil:
        raise_and_resume(&self.counter)

    cdef void distrust(self) noexcept nogil:
        cdef uint8_t *fresh
        if self.file is None:
            # Bits of memory: given back whole, they read as zero from now on.
            flag_store(&self.all_ready, 0)
            madvise(self.own, self.own_size, MADV_DONTNEED)
            return
        if pointer_load(&self.own) == NULL:
            fresh = reserve(self.own_size)
            if fresh == NULL:
                return      # tried again at the next look
            if not pointer_swap(&self.own, NULL, fresh):
                munmap(fresh, self.own_size)
        pointer_swap(&self.bits, self.file.base + 4096, pointer_load(&self.own))
        flag_store(&self.all_ready, 0)

    def ready(self, uint32_t index):
        """Whether chunk *index* is on local disk."""
        return bool(self.is_ready(index))

    def mark_ready(self, uint32_t index):
        """Record that chunk *index* is on local disk."""
        self.set_ready(index)

    def try_claim(self, uint32_t index):
        """Whether the caller now has the claim of chunk *index*."""
        return bool(self.claim(index))

    def give_up(self, uint32_t index):
        """Release the claim of chunk *index* and resume who waits."""
        self.release(index)
        self.wake()

    def forget(self):
        """Nothing is ready any more, for this process."""
        self.distrust()

    def close(self):
        """Unmap the file; nobody looks at the map any more."""
        if self.file is not None:
            self.distrust()
            if pointer_load(&self.bits) == self.own:
                self.file.close()

    def ready_count(self):
        """Chunks that are on local disk; walks the whole map."""
        cdef uint32_t i
        cdef uint32_t ready = 0
        with nogil:
            for i in range(self.count):
                ready += self.is_ready(i)
        return ready

    @property
    def shared(self):
        """Whether the bits are those of the file."""
        return pointer_load(&self.own) == NULL


def create_header(int fd, uint32_t count):
    """Size the empty file of *count* chunks and write its header, each followed by a sync."""
    os.ftruncate(fd, HEADER_BYTES + bitmap_bytes(count))
    os.fsync(fd)
    write_header(fd)


def write_header(int fd):
    """Write the magic numbers, last of all: they say that the file is complete."""
    os.pwrite(fd, HEADER.pack(MAGIC, VERSION, MAGIC2, 0), 0)
    os.fsync(fd)


def check_header(int fd, path, uint32_t count):
    """Whether the all-ready marker is set; `CacheError` when the file is not *count* chunks' map.

    A file that is zero throughout was left by a creator that died half way: it gets its header.
    """
    expected = HEADER_BYTES + bitmap_bytes(count)
    size = os.fstat(fd).st_size
    advice = "; remove it while no daemon uses the directory, to have the blob fetched again"
    if size != expected:
        raise CacheError(f"chunk map {path} has {size} bytes, {expected} are due for {count} "
                         f"chunks{advice}")
    magic, version, magic2, marker = HEADER.unpack(os.pread(fd, HEADER.size, 0))
    if magic != MAGIC:
        if has_bits(fd, 0):
            raise CacheError(f"{path} is not a chunk map (it begins with {magic:#x}){advice}")
        write_header(fd)
        return False
    if version >= 1 and magic2 != MAGIC2:
        raise CacheError(f"chunk map {path} has a broken header ({magic2:#x}){advice}")
    return marker == ALL_READY


def blocks(int fd, uint64_t offset):
    """What the file has from *offset* on, in blocks."""
    while block := os.pread(fd, BLOCK_BYTES, offset):
        yield block
        offset += len(block)


def has_bits(int fd, uint64_t offset):
    """Whether any bit of the file is set from *offset* on."""
    return any(block.count(0) != len(block) for block in blocks(fd, offset))


def is_full(int fd, uint32_t count):
    """Whether the bits of all *count* chunks are set in the file."""
    cdef uint32_t left = count
    for block in blocks(fd, HEADER_BYTES):
        whole = min(left // 8, len(block))
        if block.count(0xff, 0, whole) != whole:
            return False
        left -= whole * 8
        if whole < len(block):
            mask = 0xff00 >> left & 0xff
            return block[whole] & mask == mask
    return left == 0


def open_chunk_map(path, uint32_t count):
    """The chunk map in the file at *path*, which is made when it is missing.

    `CacheError` when the file is of another blob or broken, `OSError` when it cannot be opened or
    made. When every bit is set the marker is written, as the reference does at an open.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(fd).st_size == 0:
            create_header(fd, count)
        all_ready = check_header(fd, path, count)
        if not all_ready and is_full(fd, count):
            os.pwrite(fd, ALL_READY.to_bytes(4, "little"), 12)
            os.fsync(fd)
            all_ready = True
        return ChunkMap(count, Mapping(fd, writable=True), all_ready)
    finally:
        os.close(fd)


def promises_data(path):
    """Whether the chunk map at *path* says of any chunk that it is ready; no map says nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        marker = int.from_bytes(os.pread(fd, 4, 12), "little")
        return marker == ALL_READY or has_bits(fd, HEADER_BYTES)
    finally:
        os.close(fd)


def copy_chunk_map(path, uint32_t count):
    """Bits of this process alone that begin as those of the file at *path*, which is not written.

    No file gives an empty map; `CacheError` as `open_chunk_map` has it.
    """
    cdef ChunkMap copied = ChunkMap(count)
    cdef bytes block
    cdef uint64_t at = 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return copied
    try:
        copied.all_ready = check_header(fd, path, count)
        for block in blocks(fd, HEADER_BYTES):
            if len(block) > copied.own_size - at:
                break       # longer than it was just now
            if block.count(0) != len(block):    # zeros are there, and cost memory when written
                memcpy(copied.own + at, <const char *>block, len(block))
            at += len(block)
    finally:
        os.close(fd)
    return copied
