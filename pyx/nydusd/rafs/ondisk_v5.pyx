"""Sizes of the on-disk structs of RAFS v5, proved at import; the structs are in the `.pxd`."""

SIZES = {
    "SuperblockV5": (sizeof(SuperblockV5), 8192),
    "InodeV5": (sizeof(InodeV5), 128),
    "ChunkRecord": (sizeof(ChunkRecord), 80),
    "BlobRecordV5": (sizeof(BlobRecordV5), 8),
    "ExtBlobV5": (sizeof(ExtBlobV5), 64),
}
for _name, (_compiled, _stored) in SIZES.items():
    if _compiled != _stored:
        raise ImportError(f"{_name} takes {_compiled} bytes here, {_stored} on disk")
