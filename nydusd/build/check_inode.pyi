"""Compiled callers only: see pyx/nydusd/build/check_inode.pxd."""
