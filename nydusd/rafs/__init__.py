"""The RAFS image format, read and written; the only package that knows its offsets."""
