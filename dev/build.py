"""Compile in place what has changed in pyx/: `python dev/build.py [FOLDER]`, any Python 3.11.

Cython and setuptools, as pyproject.toml asks for them, are kept in build/tools-VERSION. Cython
compiles a module anew when its own files are newer than the module's; with one copy of it for all
environments, a new environment does not compile everything again.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "build" / f"tools-{sys.implementation.cache_tag}"


def install_tools() -> None:
    """The build requirements of pyproject.toml in `TOOLS`; nothing when they are there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = "\n".join(project["build-system"]["requires"])
    installed = TOOLS / "requirements.txt"
    if installed.exists() and installed.read_text() == wanted:
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--upgrade", "--target", TOOLS, *wanted.splitlines()], check=True)
    installed.write_text(wanted)


def compile_in_place(folder: Path) -> None:
    """Bring the compiled modules of the tree in *folder* up to date."""
    install_tools()
    environment = os.environ | {"PYTHONPATH": str(TOOLS)}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    compile_in_place(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
