"""What README.md and docs/ say can be followed: links, options, configurations, scripts."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nydusd.config.load import examine

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = {
    "nydusd": "nydusd.cli.nydusd",
    "nydus-image": "nydusd.cli.nydus_image",
    "nydusctl": "nydusd.cli.nydusctl",
}
# Split, so that this file is not its own first finding.
MACHINE = re.compile(r"/wor" + r"k/|/opt/re" + r"f\b|/opt/ven" + r"v\b|/roo" + r"t/")
HOSTS = re.compile(r"pypi\.or" + r"g|pythonhoste" + r"d|deb\.debia" + r"n|crates\.i" + r"o")


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def code_blocks(page: Path, language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands(page: Path) -> Iterator[list[str]]:
    """The command lines in the shell examples of *page*, as words."""
    for block in code_blocks(page, "(?:sh|console)"):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.removeprefix("$ ").split("#")[0].split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    broken = [
        target
        for target in targets
        if "://" not in target and not (page.parent / target).resolve().exists()
    ]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_configurations_are_accepted_without_a_warning(page):
    for block in code_blocks(page, "toml"):
        if tomllib.loads(block).get("version") != 2:
            continue
        report = examine(block)
        assert (report.errors, report.warnings) == ((), ())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_that_are_named_exist(page):
    for words in commands(page):
        if words[:1] == ["sh"]:
            assert (ROOT / words[1]).is_file(), " ".join(words)


@pytest.mark.parametrize("program", PROGRAMS)
def test_options_in_examples_are_known_to_the_program(program):
    used: dict[str, set[str]] = {}
    for page in PAGES:
        for words in commands(page):
            words = [word for word in words if "=" not in word or word.startswith("-")]
            if not words or Path(words[0]).name != program:
                continue
            arguments = words[1:]
            command = arguments[0] if arguments and arguments[0].isalpha() else ""
            options = {word.split("=")[0] for word in arguments if word.startswith("--")}
            used.setdefault(command, set()).update(options)
    for command, options in used.items():
        shown = subprocess.run(
            [sys.executable, "-m", PROGRAMS[program], *command.split(), "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        unknown = options - set(re.findall(r"--[a-z][a-z0-9-]*", shown.stdout))
        assert not unknown, f"{program} {command}"


def test_no_file_names_a_place_of_one_machine():
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # data; or removed and not yet committed
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE.search(line) or HOSTS.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found


def test_every_endpoint_names_tests_that_exist():
    from nydusd.api.routes import ROUTES

    page = (ROOT / "docs/operations/api.md").read_text()
    lines = [line for line in page.splitlines() if re.match(r"^\| [A-Z, ]+ `/", line)]
    named = set()
    for line in lines:
        methods, path = re.match(r"^\| ([A-Z, ]+) `([^`]+)`", line).groups()
        named |= {(method.strip(), path) for method in methods.split(",")}
        assert "`test_" in line or "the same" in line or "as `start`" in line, line
    assert named == set(ROUTES)
    tests = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
    for word in re.findall(r"`(test_\w+?)(\.py)?`", "\n".join(lines)):
        name, is_file = word
        known = any((ROOT / "tests").rglob(f"{name}.py")) if is_file else f"def {name}(" in tests
        assert known, name
