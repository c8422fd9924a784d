"""Compile pyx/ into the nydusd package; everything else about the build is in pyproject.toml."""

import os
import subprocess
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PYX = Path("pyx")
DEBUG = os.environ.get("NYDUSD_DEBUG") == "1"
TRACE = os.environ.get("NYDUSD_TRACE") == "1"
SANITIZE = os.environ.get("NYDUSD_SANITIZE", "")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "auto_pickle": False,
    "autotestdict": False,
    "linetrace": TRACE,
}
CFLAGS = ["-O1" if DEBUG else "-O2", "-g", "-fno-strict-aliasing", "-Wno-unused-function"]
MACROS = [("_GNU_SOURCE", "1"), ("_FILE_OFFSET_BITS", "64")]
LDFLAGS = []
if TRACE:
    MACROS.append(("CYTHON_TRACE_NOGIL", "1"))
if SANITIZE:
    CFLAGS.append(f"-fsanitize={SANITIZE}")
    LDFLAGS.append(f"-fsanitize={SANITIZE}")
# Which C libraries a module calls, by the last part of its name.
LIBRARIES = {"compression": ["lz4", "z"], "channel": ["fuse"]}


def include_dirs(stem: str) -> list[str]:
    """Header folders of the C libraries that *stem* calls, as pkg-config tells them."""
    if stem != "channel":
        return []
    flags = subprocess.run(
        ["pkg-config", "--cflags-only-I", "fuse"], capture_output=True, text=True, check=True
    )
    return [flag.removeprefix("-I") for flag in flags.stdout.split()]


extensions = [
    Extension(
        ".".join(source.relative_to(PYX).with_suffix("").parts),
        [str(source)],
        libraries=LIBRARIES.get(source.stem, []),
        include_dirs=include_dirs(source.stem),
        define_macros=MACROS,
        extra_compile_args=CFLAGS,
        extra_link_args=LDFLAGS,
    )
    for source in sorted(PYX.rglob("*.pyx"))
]
setup(
    ext_modules=cythonize(
        extensions,
        include_path=[str(PYX)],
        build_dir="build/cython",
        compiler_directives=DIRECTIVES,
    )
)
