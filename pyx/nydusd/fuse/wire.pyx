"""The kernel's FUSE ABI: the structs are in the `.pxd`; here their sizes are asserted at import.

`SIZES` gives them by name, compiled and as the kernel has them.
"""

SIZES = {
    "InHeader": (sizeof(InHeader), 40),
    "OutHeader": (sizeof(OutHeader), 16),
    "Attr": (sizeof(Attr), 88),
    "EntryOut": (sizeof(EntryOut), 128),
    "AttrOut": (sizeof(AttrOut), 104),
    "GetattrIn": (sizeof(GetattrIn), 16),
    "OpenIn": (sizeof(OpenIn), 8),
    "OpenOut": (sizeof(OpenOut), 16),
    "ReadIn": (sizeof(ReadIn), 40),
    "ReleaseIn": (sizeof(ReleaseIn), 24),
    "GetxattrIn": (sizeof(GetxattrIn), 8),
    "GetxattrOut": (sizeof(GetxattrOut), 8),
    "StatfsOut": (sizeof(StatfsOut), 80),
    "Dirent": (sizeof(Dirent), 24),
    "InitIn": (sizeof(InitIn), 64),
    "InitOut": (sizeof(InitOut), 64),
    "InvalInodeOut": (sizeof(InvalInodeOut), 24),
    "InvalEntryOut": (sizeof(InvalEntryOut), 16),
}
for _name, (_compiled, _kernel) in SIZES.items():
    if _compiled != _kernel:
        raise ImportError(f"{_name} takes {_compiled} bytes here, {_kernel} in the kernel")
