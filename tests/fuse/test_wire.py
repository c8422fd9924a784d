"""The FUSE structs have the kernel's sizes."""

import struct

import pytest

from nydusd.fuse.wire import SIZES

# linux: include/uapi/linux/fuse.h
LAYOUTS = {
    "InHeader": "IIQQIIIHH",
    "OutHeader": "IiQ",
    "Attr": "6Q10I",
    "EntryOut": "4Q2I6Q10I",
    "AttrOut": "Q2I6Q10I",
    "GetattrIn": "2IQ",
    "OpenIn": "2I",
    "OpenOut": "QIi",
    "ReadIn": "2Q2IQ2I",
    "ReleaseIn": "Q2IQ",
    "GetxattrIn": "2I",
    "GetxattrOut": "2I",
    "StatfsOut": "5Q4I6I",
    "Dirent": "2Q2I",
    "InitIn": "5I11I",
    "InitOut": "4I2HII2HIIH11H",
    "InvalInodeOut": "Q2q",
    "InvalEntryOut": "Q2I",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_struct_has_the_kernels_size(name):
    assert SIZES[name] == (struct.calcsize("=" + LAYOUTS[name]),) * 2


def test_every_struct_is_looked_at():
    assert SIZES.keys() == LAYOUTS.keys()
