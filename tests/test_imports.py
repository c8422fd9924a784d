"""What a start does not import: every module costs time before the first answer."""

import subprocess
import sys

import pytest

# Of the standard library and others: 10 ms and more each, or a second way to do a thing.
HEAVY = (
    "argparse",
    "asyncio",
    "uvloop",
    "numpy",
    "pycurl",
    "ssl",
    "tomllib",
    "difflib",
    "gzip",
    "cryptography",
)


def modules_after(code):
    """Names of the modules that are loaded after *code* ran in a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sorted(sys.modules), file=sys.stderr)"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return set(result.stderr.split())


def test_the_version_needs_next_to_nothing_of_ours():
    code = "from nydusd.cli.nydusd import main; main(['--version'])"
    ours = {name for name in modules_after(code) if name.partition(".")[0] == "nydusd"}

    assert ours == {
        "nydusd",
        "nydusd.base",
        "nydusd.base.version",
        "nydusd.cli",
        "nydusd.cli.command",
        "nydusd.cli.nydusd",
    }


def test_the_version_needs_nothing_that_is_slow():
    loaded = modules_after("from nydusd.cli.nydusd import main; main(['-V'])")

    assert not loaded & {*HEAVY, "logging", "dataclasses", "json", "re"}


@pytest.mark.parametrize(
    "module",
    [
        "nydusd.cli.nydusd",
        "nydusd.cli.settings",
        "nydusd.daemon.process",
        "nydusd.daemon.settings",
        "nydusd.api.run",
    ],
)
def test_a_daemon_starts_without_what_it_does_not_need(module):
    assert not modules_after(f"import {module}") & set(HEAVY)


def test_reading_json_imports_neither_toml_nor_name_hints():
    code = (
        "from nydusd.config.load import parse_config, local_config_text\n"
        "parse_config(local_config_text('/blobs'))"
    )

    assert not modules_after(code) & set(HEAVY)


def test_the_event_loop_comes_without_tls():
    loaded = modules_after("import nydusd.api.event_loop")

    assert "uvloop" in loaded
    assert not loaded & {"ssl", "_ssl"}


def test_tls_can_be_had_after_the_event_loop():
    code = (
        "import nydusd.api.event_loop, ssl\n"
        "assert issubclass(ssl.SSLError, OSError) and ssl.create_default_context()"
    )

    assert "_ssl" in modules_after(code)
