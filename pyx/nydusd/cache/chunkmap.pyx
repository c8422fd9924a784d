"""Which chunks of a blob are on local disk: ready bits and claims.

Three sets of bits. What this process *knows*: it has written the chunk, or looked for it in the
data file; reads are answered by these alone. What files *promise* that several daemons map shared
(rafs-format: chunk map): a set bit says that the bytes are in the data file already, and is never
cleared there; it counts once it has been looked at (`CachedBlob.has`). *Claims* are of this
process: one fetch a chunk, whoever else wants it waits on `counter` (base.parking) with a limit.
Every bit is read and set with atomics, nothing locks; any thread. The mappings are guarded: when
somebody cuts a file, its promises are dropped.
"""

import contextlib
import os
import struct

from libc.stdint cimport uint8_t, uint32_t, uint64_t

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
    static inline int flag_load(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void flag_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    uint8_t bits_load(const uint8_t *) noexcept nogil
    uint8_t bits_or(uint8_t *, uint8_t) noexcept nogil
    void bits_clear(uint8_t *, uint8_t) noexcept nogil
    int flag_load(const int *) noexcept nogil
    void flag_store(int *, int) noexcept nogil

cdef enum:
    HEADER = 4096
    MARKER = 12         # where the all-ready marker stands

HEADER_BYTES = HEADER
MAGIC = 0x424D4150
VERSION = 1
MARKER_AT = MARKER
MAGIC2 = 0x434D4150
ALL_READY = 0x4D4D4150
BLOCK_BYTES = 1 << 16   # read at a time: a hostile image may ask for a map of 512 MiB
MAGICS = struct.Struct("<4I")


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
    """Bits of *count* chunks, of this process alone or shared through *file*.

    *all_ready*: the file's marker is set. *twin*: another chunk map of the same data file, which
    daemons of other versions use. Without *writing* both are only read. `open_chunk_map` opens
    such files.
    """

    def __cinit__(self, uint32_t count, Mapping file=None, bint all_ready=False,
                  Mapping twin=None, bint writing=True):
        self.known = NULL
        self.claims = NULL
        self.count = count
        self.bitmap_size = bitmap_bytes(count) or 1
        for mapping in (file, twin):
            if mapping is not None and mapping.size < HEADER_BYTES + bitmap_bytes(count):
                raise ValueError("the mapping is shorter than the chunk map")
        self.file = file
        self.twin = twin
        self.sharing = file is not None
        self.writing = file is not None and writing
        self.all_ready = all_ready
        self.counter = 0
        self.claims = reserve(self.bitmap_size)
        self.known = reserve(self.bitmap_size)
        if self.claims == NULL or self.known == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.known != NULL:
            munmap(self.known, self.bitmap_size)
        if self.claims != NULL:
            munmap(self.claims, self.bitmap_size)

    cdef bint is_ready(self, uint32_t index) noexcept nogil:
        if index >= self.count:
            return False
        return bits_load(self.known + (index >> 3)) & (0x80 >> (index & 7)) != 0

    cdef bint is_promised(self, uint32_t index) noexcept nogil:
        if index >= self.count or not flag_load(&self.sharing):
            return False
        if flag_load(&self.all_ready):
            return True
        return self.is_set(self.file, index) or self.is_set(self.twin, index)

    cdef bint is_set(self, Mapping mapping, uint32_t index) noexcept nogil:
        cdef bint found
        if mapping is None:
            return False
        found = bits_load(mapping.base + HEADER + (index >> 3)) & (0x80 >> (index & 7)) != 0
        if mapping.is_damaged():
            self.detach()
            return False
        return found

    cdef bint is_claimed(self, uint32_t index) noexcept nogil:
        if index >= self.count:
            return False
        return bits_load(self.claims + (index >> 3)) & (0x80 >> (index & 7)) != 0

    cdef void set_ready(self, uint32_t index) noexcept nogil:
        if index >= self.count:
            return
        bits_or(self.known + (index >> 3), 0x80 >> (index & 7))
        if self.writing and flag_load(&self.sharing):
            bits_or(self.file.base + HEADER + (index >> 3), 0x80 >> (index & 7))
            if self.twin is not None:
                bits_or(self.twin.base + HEADER + (index >> 3), 0x80 >> (index & 7))

    cdef void unset(self, uint32_t index) noexcept nogil:
        cdef uint8_t mask = 0x80 >> (index & 7)
        if index >= self.count:
            return
        if self.writing and flag_load(&self.sharing):
            bits_clear(self.file.base + HEADER + (index >> 3), mask)
            if self.twin is not None:
                bits_clear(self.twin.base + HEADER + (index >> 3), mask)
        bits_clear(self.known + (index >> 3), mask)

    cdef void trust(self, uint32_t index) noexcept nogil:
        if index < self.count:
            bits_or(self.known + (index >> 3), 0x80 >> (index & 7))

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

    cdef void doubt(self) noexcept nogil:
        # Given back whole, the bits read as zero from now on.
        madvise(self.known, self.bitmap_size, MADV_DONTNEED)

    cdef void detach(self) noexcept nogil:
        flag_store(&self.sharing, 0)

    cdef void distrust(self) noexcept nogil:
        self.detach()
        self.doubt()

    def ready(self, uint32_t index):
        """Whether chunk *index* is on local disk, for all that this process knows or is told."""
        return bool(self.is_ready(index) or self.is_promised(index))

    def known_ready(self, uint32_t index):
        """Whether this process has written chunk *index* itself, or has looked for it."""
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

    def look_again(self):
        """Know nothing any more, in this process: each chunk is looked for before it counts."""
        self.doubt()

    def keep_to_itself(self):
        """Neither read nor write the files any more; what is known stays known."""
        self.detach()

    def forget(self):
        """Nothing is ready any more, for this process."""
        self.distrust()

    def close(self):
        """Unmap the files; nobody looks at the map any more."""
        self.distrust()
        if self.file is not None:
            self.file.close()
        if self.twin is not None:
            self.twin.close()

    def promises(self):
        """The bits of the files as bytes, all of them when the marker is set; b"" for no file."""
        cdef bytes first
        if not flag_load(&self.sharing):
            return b""
        size = bitmap_bytes(self.count)
        if flag_load(&self.all_ready):
            return b"\xff" * size
        first = self.file.read(HEADER_BYTES, size)
        if self.twin is not None:
            first = either(first, self.twin.read(HEADER_BYTES, size))
        if self.file.is_damaged() or (self.twin is not None and self.twin.is_damaged()):
            self.detach()
            return b""
        return first

    def add_promises(self, const uint8_t[::1] bits):
        """Set every bit in the file that is set in *bits*."""
        cdef uint64_t i
        cdef uint64_t size = min(<uint64_t>bits.shape[0], <uint64_t>bitmap_bytes(self.count))
        if not (self.writing and flag_load(&self.sharing)):
            return
        with nogil:
            for i in range(size):
                if bits[i] != 0:
                    bits_or(self.file.base + HEADER + i, bits[i])

    def drop_promises(self, indexes):
        """Clear the bits of *indexes*, whose bytes are about to go; a full map is full no more."""
        cdef uint32_t index
        if flag_load(&self.all_ready):
            if self.writing and flag_load(&self.sharing):
                for mapping in (self.file, self.twin):
                    if mapping is not None:
                        clear_marker(mapping)
            flag_store(&self.all_ready, 0)
        for index in indexes:
            self.unset(index)

    def ready_count(self):
        """Chunks that are on local disk; walks the whole map."""
        cdef uint32_t i
        cdef uint32_t ready = 0
        with nogil:
            for i in range(self.count):
                ready += self.is_ready(i) or self.is_promised(i)
        return ready

    @property
    def shared(self):
        """Whether bits of files count."""
        return flag_load(&self.sharing) != 0


cdef void clear_marker(Mapping mapping) noexcept nogil:
    """Take the all-ready marker away; every single bit of such a map is set as well."""
    cdef int i
    for i in range(4):
        bits_clear(mapping.base + MARKER + i, 0xff)


def either(const uint8_t[::1] first, const uint8_t[::1] second):
    """The bits that are set in either of two bitmaps of one length."""
    cdef bytearray joined = bytearray(first)
    cdef uint8_t[::1] bits = joined
    cdef Py_ssize_t i
    for i in range(min(first.shape[0], second.shape[0])):
        bits[i] |= second[i]
    return bytes(joined)


def both(const uint8_t[::1] first, const uint8_t[::1] second):
    """The bits that are set in both of two bitmaps of one length."""
    cdef bytearray joined = bytearray(first)
    cdef uint8_t[::1] bits = joined
    cdef Py_ssize_t i
    for i in range(min(first.shape[0], second.shape[0])):
        bits[i] &= second[i]
    return bytes(joined)


def create_header(int fd, uint32_t count):
    """Size the empty file of *count* chunks, then write its header.

    Length before header, as the reference has it; in between the file is all zeros. Nothing is
    synced: a power cut leaves an empty file, zeros or a header, and each of them can be opened.
    """
    os.ftruncate(fd, HEADER_BYTES + bitmap_bytes(count))
    write_header(fd)


def write_header(int fd):
    """Write the magic numbers, last of all: they say that the file is complete."""
    os.pwrite(fd, MAGICS.pack(MAGIC, VERSION, MAGIC2, 0), 0)


def check_header(int fd, path, uint32_t count):
    """Whether the all-ready marker is set; `CacheError` when the file is not *count* chunks' map.

    A file that is zero throughout was left by a creator that died half way: None.
    """
    expected = HEADER_BYTES + bitmap_bytes(count)
    size = os.fstat(fd).st_size
    advice = "; remove it while no daemon uses the directory, to have the blob fetched again"
    if size != expected:
        raise CacheError(f"chunk map {path} has {size} bytes, {expected} are due for {count} "
                         f"chunks{advice}")
    magic, version, magic2, marker = MAGICS.unpack(os.pread(fd, MAGICS.size, 0))
    if magic != MAGIC:
        if has_bits(fd, 0):
            raise CacheError(f"{path} is not a chunk map (it begins with {magic:#x}){advice}")
        return None
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


def open_map_file(path, uint32_t count):
    """A writable mapping of the chunk map at *path*, made when missing, and whether it is full.

    When every bit is set the marker is written, as the reference does at an open.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(fd).st_size == 0:
            create_header(fd, count)
        all_ready = check_header(fd, path, count)
        if all_ready is None:
            write_header(fd)
        elif not all_ready and is_full(fd, count):
            os.pwrite(fd, ALL_READY.to_bytes(4, "little"), MARKER_AT)
            all_ready = True
        return Mapping(fd, writable=True), bool(all_ready)
    finally:
        os.close(fd)


def open_chunk_map(path, uint32_t count, twin_path=None):
    """The chunk map in the file at *path*, which is made when it is missing.

    *twin_path*: where daemons of other versions keep the same map. It is made another name of the
    file; where it is a file of its own both are used. `CacheError` when a file is of another blob
    or broken, `OSError` when it cannot be opened or made.
    """
    twin = None
    twin_ready = False
    if twin_path is not None:
        link_quietly(twin_path, path)
    mapping, all_ready = open_map_file(path, count)
    if twin_path is not None:
        link_quietly(path, twin_path)
        if is_another_file(twin_path, path):
            twin, twin_ready = open_map_file(twin_path, count)
    return ChunkMap(count, mapping, all_ready or twin_ready, twin)


def link_quietly(source, target):
    """Give the file *source* the second name *target*, where that is free and can be done."""
    with contextlib.suppress(OSError):
        os.link(source, target)


def is_another_file(path, other):
    """Whether *path* exists and is not just another name of *other*."""
    try:
        return not os.path.samefile(path, other)
    except FileNotFoundError:
        return False


def view_chunk_map(path, uint32_t count):
    """The chunk map in the file at *path*, only read; what is kept meanwhile counts here alone.

    No file, or one that is only half made, promises nothing; `CacheError` as `open_chunk_map`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ChunkMap(count)
    try:
        if os.fstat(fd).st_size == 0:
            return ChunkMap(count)
        all_ready = check_header(fd, path, count)
        if all_ready is None:
            return ChunkMap(count)
        return ChunkMap(count, Mapping(fd), all_ready, writing=False)
    finally:
        os.close(fd)


def promises_data(path):
    """Whether the chunk map at *path* says of any chunk that it is ready; no map says nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        marker = int.from_bytes(os.pread(fd, 4, MARKER_AT), "little")
        return marker == ALL_READY or has_bits(fd, HEADER_BYTES)
    finally:
        os.close(fd)
