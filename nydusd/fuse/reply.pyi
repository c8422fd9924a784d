"""Compiled callers only: see pyx/nydusd/fuse/reply.pxd."""
