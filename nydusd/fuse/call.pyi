"""Compiled callers only: see pyx/nydusd/fuse/call.pxd."""
