"""Compiled callers only: see pyx/nydusd/base/parking.pxd."""
