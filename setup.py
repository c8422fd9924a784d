"""Compile pyx/ into the nydusd package; everything else about the build is in pyproject.toml."""

import compileall
import os
import platform
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup

PYX = Path("pyx")
DEBUG = os.environ.get("NYDUSD_DEBUG") == "1"
TRACE = os.environ.get("NYDUSD_TRACE") == "1"
SANITIZE = os.environ.get("NYDUSD_SANITIZE", "")
ONLY = os.environ.get("NYDUSD_ONLY", "**/*.pyx").split()  # which modules, patterns below PYX

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "auto_pickle": False,
    "autotestdict": False,
    "linetrace": TRACE,
}
CFLAGS = [
    "-O1" if DEBUG else "-O2",
    "-g",
    "-fno-strict-aliasing",
    "-Wno-unused-function",
    "-Wno-sign-compare",
]
MACROS = [("_GNU_SOURCE", "1"), ("_FILE_OFFSET_BITS", "64")]
LDFLAGS = []
if TRACE:
    MACROS.append(("CYTHON_TRACE_NOGIL", "1"))
if SANITIZE:
    CFLAGS.append(f"-fsanitize={SANITIZE}")
    LDFLAGS.append(f"-fsanitize={SANITIZE}")
# Which C libraries a module calls, by the last part of its name.
LIBRARIES = {"compression": ["lz4", "z"], "channel": ["fuse"], "zran": ["isal"]}


def include_dirs(stem: str) -> list[str]:
    """Header folders of the C libraries that *stem* calls, as pkg-config tells them."""
    if stem != "channel":
        return []
    flags = subprocess.run(
        ["pkg-config", "--cflags-only-I", "fuse"], capture_output=True, text=True, check=True
    )
    return [flag.removeprefix("-I") for flag in flags.stdout.split()]


def write_version() -> None:
    """State what is being built in nydusd/base/version.py; an sdist keeps what it came with."""
    target = Path("nydusd/base/version.py")
    if target.exists() and not Path(".git").exists():
        return
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    try:
        git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
        commit = git.stdout.strip() if git.returncode == 0 and Path(".git").exists() else "unknown"
    except OSError:
        commit = "unknown"
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    built = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    facts = {
        "VERSION": project["version"],
        "GIT_COMMIT": commit,
        "BUILD_TIME": built.isoformat().replace("+00:00", "Z"),
        "PROFILE": "debug" if DEBUG else "release",
        "COMPILER": f"cython {Cython.__version__}, python {platform.python_version()}",
    }
    lines = [f"{name} = {value!r}".replace("'", '"') for name, value in facts.items()]
    target.write_text(
        '"""What this build is; written by setup.py."""\n\n' + "\n".join(lines) + "\n"
    )


write_version()
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
    for source in sorted({found for pattern in ONLY for found in PYX.glob(pattern)})
]
setup(
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=cythonize(
        extensions,
        nthreads=os.cpu_count() or 1,
        include_path=[str(PYX)],
        build_dir="build/cython",
        compiler_directives=DIRECTIVES,
    ),
)
# A daemon is started from this tree as well, and half of a start is compiling where nobody has yet.
compileall.compile_dir("nydusd", quiet=1)
