# Where the inodes, directories and symlinks of a v6 image go in its metadata area.
from libc.stdint cimport uint64_t

from nydusd.rafs.write_tree cimport TreeNode

# Give each node its place: a directory, its other children, then its directories one by one. Bytes
# of the area; `BuildError` for attributes that v6 cannot store.
cdef uint64_t place_tree(TreeNode root) except 0
