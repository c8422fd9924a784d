"""Compiled callers only: see pyx/nydusd/fs/op.pxd."""
