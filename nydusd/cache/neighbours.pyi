"""Compiled callers only: see pyx/nydusd/cache/neighbours.pxd."""
