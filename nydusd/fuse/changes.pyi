"""Compiled callers only: see pyx/nydusd/fuse/changes.pxd."""
