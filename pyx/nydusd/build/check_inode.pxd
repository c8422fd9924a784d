# What is wrong with one inode, in words.
from libc.stdint cimport uint64_t

from nydusd.rafs.bootstrap cimport Bootstrap
from nydusd.rafs.read_v5 cimport BootstrapV5, Record

# why the v5 record with *index* cannot be used
cdef str record_fault(BootstrapV5 bootstrap, uint64_t index)
# why a chunk of a v5 file cannot be used
cdef str chunk_fault(BootstrapV5 bootstrap, const Record *record, uint64_t number)
# lines about extended attributes
cdef list xattr_faults(Bootstrap bootstrap, uint64_t ino)
