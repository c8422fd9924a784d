"""Sizes of the on-disk structs of data blobs, proved at import; the structs are in the `.pxd`."""

SIZES = {
    "CiEntryV1": (sizeof(CiEntryV1), 16),
    "CiEntryV2": (sizeof(CiEntryV2), 24),
    "CiHeader": (sizeof(CiHeader), 4096),
    "BatchContext": (sizeof(BatchContext), 40),
    "ZranContext": (sizeof(ZranContext), 40),
    "TocEntry": (sizeof(TocEntry), 128),
    "TarHeader": (sizeof(TarHeader), 512),
}
for _name, (_compiled, _stored) in SIZES.items():
    if _compiled != _stored:
        raise ImportError(f"{_name} takes {_compiled} bytes here, {_stored} on disk")
