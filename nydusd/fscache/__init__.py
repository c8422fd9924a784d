"""Carries the requests of the kernel's cachefiles to the blobs of RAFS v6 images, for EROFS."""
