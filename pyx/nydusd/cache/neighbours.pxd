# What is brought along beside the chunks that a read needs.
from libc.stdint cimport uint32_t, uint64_t

from nydusd.cache.claims cimport Claims
from nydusd.rafs.bootstrap cimport ChunkSpan

# Claim what is not here of wanted units, and neighbours while the range stays within *batch_size*;
# *following* for a blob without CI array. *claims* is sorted, before and afterwards.
cdef int bring_neighbours(Claims claims, uint64_t batch_size, const ChunkSpan *following,
                          uint32_t following_count) except -1
# The same for chunks that nobody needs yet, from chunk *first* of a blob with a CI array on, up to
# one that is here, claimed, or in a shared unit; the chunk after the last one that was claimed.
cdef uint32_t bring_run(Claims claims, uint32_t first, uint64_t batch_size) except? 0xffffffff
