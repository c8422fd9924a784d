"""Compiled callers only: see pyx/nydusd/cache/unit.pxd."""
