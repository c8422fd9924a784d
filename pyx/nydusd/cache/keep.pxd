# Writing to the cache file what a fetch has had.
from nydusd.cache.fetch cimport Fetch

# Decode the rest, write all to the cache file and set the bits; whether all that is needed is
# there now. Nobody looks at chunks that came along after it.
cdef bint keep_fetched(Fetch fetch) except -1
