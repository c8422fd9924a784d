"""One struct per FUSE operation: compiled callers only, see op.pxd."""
