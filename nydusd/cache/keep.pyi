"""Compiled callers only: see pyx/nydusd/cache/keep.pxd."""
