"""Compiled callers only: see pyx/nydusd/fs/change.pxd."""
