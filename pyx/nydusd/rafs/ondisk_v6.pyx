"""Sizes of the on-disk structs of RAFS v6, proved at import; the structs are in the `.pxd`."""

SIZES = {
    "SuperblockV6": (sizeof(SuperblockV6), 128),
    "ExtSuperblockV6": (sizeof(ExtSuperblockV6), 256),
    "DeviceSlotV6": (sizeof(DeviceSlotV6), 128),
    "BlobEntryV6": (sizeof(BlobEntryV6), 256),
    "InodeCompactV6": (sizeof(InodeCompactV6), 32),
    "InodeExtendedV6": (sizeof(InodeExtendedV6), 64),
    "DirentV6": (sizeof(DirentV6), 12),
    "XattrHeaderV6": (sizeof(XattrHeaderV6), 12),
    "XattrEntryV6": (sizeof(XattrEntryV6), 4),
    "ChunkIndexV6": (sizeof(ChunkIndexV6), 8),
}
for _name, (_compiled, _stored) in SIZES.items():
    if _compiled != _stored:
        raise ImportError(f"{_name} takes {_compiled} bytes here, {_stored} on disk")
