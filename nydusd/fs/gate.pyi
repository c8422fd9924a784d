"""Compiled callers only: see pyx/nydusd/fs/gate.pxd."""
