# Reads asked by Python: spans as records.
from nydusd.rafs.bootstrap cimport ChunkSpan

# *span* (rafs.records.Span) as a struct; its digest stays borrowed from the record
cdef int chunk_span(span, ChunkSpan *out) except -1
