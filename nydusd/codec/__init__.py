"""Bytes in, bytes out: compression and digests; no I/O, no shared state."""
