"""Compiled callers only: see pyx/nydusd/cache/target.pxd."""
