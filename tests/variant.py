"""Run tests on a specially built copy of the tree: `python tests/variant.py NAME [arguments...]`.

`asan` and `cov` run pytest; `hostile` runs the campaign of hostile inputs under the sanitizers,
with only those modules that it feeds.

The copy (`build/variant-NAME`) keeps the compiled modules of the working tree as they are. It is
brought up to date and compiled anew where something has changed. Called by tox.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ASAN_TESTS = [
    f"tests/{package}" for package in ("base", "codec", "rafs", "cache", "fs", "fuse", "build")
]
# What `tests.hostile.campaign` feeds, as patterns below pyx/.
HOSTILE_MODULES = (
    "nydusd/base/*.pyx nydusd/codec/*.pyx nydusd/cache/chunkmap.pyx "
    "nydusd/rafs/[!w]*.pyx nydusd/rafs/write_tree.pyx nydusd/build/look.pyx "
    "nydusd/build/check_*.pyx"
)


def copy_tree(copy: Path) -> None:
    """Bring *copy* to the state of the working tree; files that git ignores stay behind."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    wanted = {Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name}
    for name in sorted(wanted):
        source, target = ROOT / name, copy / name
        if not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.stat().st_mtime_ns != source.stat().st_mtime_ns:
            shutil.copy2(source, target)
    # Tests look for the reference's images beside the tree that they are in.
    beside = copy.parent / "shared"
    if not beside.is_symlink() and (ROOT.parent / "shared").is_dir():
        beside.symlink_to(ROOT.parent / "shared")
    for folder in ("nydusd", "pyx", "tests"):
        for found in (copy / folder).rglob("*.p*"):
            if found.is_file() and found.suffix != ".pyc" and found.relative_to(copy) not in wanted:
                found.unlink()


def build(copy: Path, settings: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, "dev/build.py", copy], cwd=ROOT, env=os.environ | settings, check=True
    )


def runtime_library(name: str) -> str:
    """Where gcc keeps the runtime *name*, to be loaded before the interpreter's own libraries."""
    found = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def sanitized(copy: Path) -> dict[str, str]:
    """The environment of a Python that loads sanitized modules."""
    return os.environ | {
        "PYTHONPATH": str(copy),
        "PYTHONMALLOC": "malloc",  # or a write past an object hits only Python's own pool
        "LD_PRELOAD": f"{runtime_library('libasan.so')} {runtime_library('libubsan.so')}",
        # The interpreter frees little at its end; the guard of base.mapping owns SIGBUS.
        "ASAN_OPTIONS": "detect_leaks=0:handle_sigbus=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }


def run_asan(copy: Path, arguments: list[str]) -> int:
    build(copy, {"NYDUSD_SANITIZE": "address,undefined", "NYDUSD_DEBUG": "1"})
    tests = [] if any((copy / name).exists() for name in arguments) else ASAN_TESTS
    # A finding ends the process: stderr must not be in pytest's hands then.
    pytest = [sys.executable, "-m", "pytest", "--capture=sys", "--timeout", "600"]
    command = [*pytest, *arguments, *tests]
    return subprocess.run(command, cwd=copy, env=sanitized(copy), check=False).returncode


def run_hostile(copy: Path, arguments: list[str]) -> int:
    build(
        copy,
        {
            "NYDUSD_SANITIZE": "address,undefined",
            "NYDUSD_DEBUG": "1",
            "NYDUSD_ONLY": HOSTILE_MODULES,
        },
    )
    settings = sanitized(copy)
    # What was freed is kept for a while to catch its use; the default would look like a leak.
    settings["ASAN_OPTIONS"] += ":quarantine_size_mb=16"
    command = [sys.executable, "-m", "tests.hostile.campaign", *arguments]
    return subprocess.run(command, cwd=copy, env=settings, check=False).returncode


def run_cov(copy: Path, arguments: list[str]) -> int:
    build(copy, {"NYDUSD_TRACE": "1"})
    settings = os.environ | {"PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", "--timeout", "600"]
    code = subprocess.run([*command, *arguments], cwd=copy, env=settings, check=False).returncode
    for step in (["combine", "-q"], ["report", "--skip-covered"]):
        subprocess.run(
            [sys.executable, "-m", "coverage", *step], cwd=copy, env=settings, check=False
        )
    return code


def main() -> int:
    variants = {"asan": run_asan, "cov": run_cov, "hostile": run_hostile}
    if len(sys.argv) < 2 or sys.argv[1] not in variants:
        print(__doc__, file=sys.stderr)
        return 2
    name, *arguments = sys.argv[1:]
    copy = ROOT / "build" / f"variant-{name}"
    copy_tree(copy)
    return variants[name](copy, arguments)


if __name__ == "__main__":
    sys.exit(main())
