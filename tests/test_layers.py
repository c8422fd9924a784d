"""The imports of the tree are those that docs/architecture.md allows, in Python and in Cython."""

import ast
import re
import tokenize
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYX = ROOT / "pyx"
PACKAGE = "nydusd"
KEYWORDS = {"from", "import", "cimport"}


def allowed_imports() -> dict[str, set[str]]:
    """package -> the packages it may import, from the table of docs/architecture.md."""
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.split("## Who may import whom", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \|$", table, re.MULTILINE)
    allowed = {package: set(names.split()) - {"-"} for package, names in rows}
    allowed.pop("package", None)
    return allowed


ALLOWED = allowed_imports()


def sources(*suffixes: str) -> list[Path]:
    found = [*(ROOT / PACKAGE).rglob("*"), *(PYX / PACKAGE).rglob("*")]
    return sorted(path for path in found if path.suffix in suffixes)


def module_of(path: Path) -> str:
    """Dotted name of the module that *path* is the face or the body of."""
    base = PYX if path.is_relative_to(PYX) else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    """`rafs` for `nydusd.rafs.load`; "" for `nydusd` itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports_of_python(path: Path) -> Iterator[str]:
    """What a .py or .pyi names in its imports, wherever they stand in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: line {node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.args[0]
            if called == "import_module" and isinstance(name, ast.Constant):
                yield str(name.value)


def statements(path: Path) -> Iterator[list[str]]:
    """The logical lines of a .pyx or .pxd as lists of words, without comments and line ends."""
    words: list[str] = []
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT}
    with path.open("rb") as lines:
        for token in tokenize.tokenize(lines.readline):
            if token.type == tokenize.NEWLINE or token.string == ";":
                yield words
                words = []
            elif token.type not in skipped:
                words.append(token.string)


def imports_of_cython(path: Path) -> Iterator[str]:
    """What a .pyx or .pxd names in its imports and cimports."""
    for words in statements(path):
        if not words or words[0] not in KEYWORDS:
            continue
        assert words[1] != ".", f"{path}: `{' '.join(words)}`: cimports are absolute"
        assert words[-1] != "*", f"{path}: `{' '.join(words)}`: names are named"
        end = 1
        while end < len(words) and words[end] not in KEYWORDS | {"as", ","}:
            end += 1
        origin = "".join(words[1:end])
        if words[0] == "from":
            named = re.sub(r"\bas \w+", "", " ".join(words[end + 1 :])).strip("() ")
            yield from (f"{origin}.{name.strip()}" for name in named.split(",") if name.strip())
        else:
            listed = re.sub(r" as \w+", "", " ".join(words[1:])).replace(" ", "")
            yield from listed.split(",")


def imports_of(path: Path) -> Iterable[str]:
    read = imports_of_cython if path.suffix in {".pyx", ".pxd"} else imports_of_python
    return (name for name in read(path) if name.split(".")[0] == PACKAGE)


def known_modules() -> set[str]:
    return {module_of(path) for path in sources(".py", ".pyi", ".pyx", ".pxd")}


def modules_named(names: Iterable[str], known: set[str]) -> set[str]:
    """`nydusd.rafs.blobs` for `nydusd.rafs.blobs.BlobInfo`: the modules that *names* lie in."""
    found = set()
    for name in names:
        found.add(name if name in known else name.rpartition(".")[0])
    return found


def test_the_table_names_every_package():
    packages = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert packages == ALLOWED.keys()


def test_the_table_has_no_circles():
    order = list(TopologicalSorter(ALLOWED).static_order())
    assert order[0] == "base"


@pytest.mark.parametrize(
    "path", sources(".py", ".pyi", ".pyx", ".pxd"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_module_imports_only_what_the_table_allows(path):
    own = package_of(module_of(path))
    wrong = [
        name
        for name in imports_of(path)
        if own and package_of(name) not in ALLOWED[own] | {own, ""}
    ]
    assert not wrong, f"{path.relative_to(ROOT)} ({own}) may import {sorted(ALLOWED[own])} only"


def test_imports_inside_a_package_have_no_circles():
    known = known_modules()
    graph: dict[str, set[str]] = {}
    for path in sources(".py", ".pyi", ".pyx", ".pxd"):
        module = module_of(path)
        graph.setdefault(module, set()).update(modules_named(imports_of(path), known) - {module})
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as circle:
        pytest.fail(f"circle: {' -> '.join(circle.args[1])}")


def test_every_stub_has_one_body():
    for stub in (ROOT / PACKAGE).rglob("*.pyi"):
        body = PYX / stub.relative_to(ROOT).with_suffix(".pyx")
        python = stub.with_suffix(".py")
        assert body.exists() != python.exists(), f"{stub}: its body is one of {body}, {python}"


def test_every_compiled_module_has_a_stub():
    for body in PYX.rglob("*.pyx"):
        stub = ROOT / body.relative_to(PYX).with_suffix(".pyi")
        assert stub.exists(), f"{body}: Python code and mypy look for {stub}"


def test_pyx_is_laid_over_the_package():
    assert [*PYX.rglob("__init__.*")] == [], "packages are declared in nydusd/, not in pyx/"
    assert [*PYX.rglob("*.pxi")] == [], "nothing is included as text"
    assert [*PYX.rglob("*.py")] == [], "Python modules live in nydusd/"


def test_the_reader_of_cython_imports_understands_every_form(tmp_path):
    source = tmp_path / "sample.pyx"
    source.write_text(
        '"""from nydusd.cli import text in a docstring is not an import."""\n'
        "import os, nydusd.base.log as log  # import nydusd.api\n"
        "cimport nydusd.base.parking\n"
        "from nydusd.rafs.bootstrap cimport (\n    ChunkSpan,\n    Attributes as Attr,\n)\n"
        'cdef extern from "import.h":\n    int f(void *p) nogil\n'
        "def g():\n    from nydusd.codec import digest; from nydusd.base cimport mapping\n"
    )
    assert set(imports_of(source)) == {
        "nydusd.base.log",
        "nydusd.base.parking",
        "nydusd.rafs.bootstrap.ChunkSpan",
        "nydusd.rafs.bootstrap.Attributes",
        "nydusd.codec.digest",
        "nydusd.base.mapping",
    }
