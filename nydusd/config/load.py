"""A configuration from a file, a mount request's text, or a folder of blobs.

Which format it is, is found by trying: version 2 as JSON, version 2 as TOML, version 1 as JSON.
`examine` tells everything about a text, `parse_config` and `load_config` give the configuration
or a `ConfigError` and log the warnings. Bytes may be hostile: whatever is in them, the answer is
a configuration or an error of a few printable lines.
"""

import json
import logging
import re
from pathlib import Path
from typing import Any, Final, NoReturn

from nydusd.base.errors import ConfigError
from nydusd.base.record import NamedTuple
from nydusd.config.findings import Findings
from nydusd.config.model import Config
from nydusd.config.schema import Table
from nydusd.config.v1 import read_v1
from nydusd.config.v2 import VERSION as VERSION_2
from nydusd.config.v2 import read_v2

logger = logging.getLogger("nydusd")

MOST_BYTES: Final = 1 << 20
# tomllib takes time with the third power of a key's dots; no key of ours has more than 4 parts.
MOST_KEY_DOTS: Final = 16
_TOML_TEXT_OR_COMMENT: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'|#[^\n]*")
_TOML_KEY_END: Final = re.compile(r"[=,{}\[\]\n]")

_V2_SECTIONS: Final = frozenset({"backend", "cache", "rafs", "overlay"})

# The reference's words for what can come out; clients and tests look for them.
UNPARSABLE: Final = "failed to parse configuration information"
INVALID: Final = "invalid configuration"
UNSUPPORTED: Final = "unsupported configuration"  # ours: the reference has all its own features
TOO_BIG: Final = "configuration file size is too big"


class Report(NamedTuple):
    """All that is to say about one configuration text."""

    config: Config | None  # None when there is any error
    format: str  # for messages: "version 1 JSON", ""
    reason: str  # the outcome in the reference's words; "" without errors
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def load_config(path: str) -> tuple[Config, str]:
    """The configuration in the file at *path*, and its text as it was written.

    `ConfigError` when it cannot be read or used; warnings are logged.
    """
    data = read_config_file(path)
    config = parse_config(data)
    return config, data.decode()


def read_config_file(path: str, most: int = MOST_BYTES) -> bytes:
    """The bytes of the file at *path*: at most one byte more than *most*, which it may have."""
    try:
        with Path(path).open("rb") as file:
            return file.read(most + 1)
    except OSError as exc:
        text = f"{path}: {exc.strerror}"
        raise ConfigError(f"Failed to load config: {text}", (text,)) from exc
    except ValueError as exc:  # a NUL in the path
        text = f"{path!r}: {exc}"
        raise ConfigError(f"Failed to load config: {text}", (text,)) from exc


def parse_config(data: bytes | str) -> Config:
    """The configuration in *data*; `ConfigError` when it cannot be used; warnings are logged."""
    report = examine(data)
    for warning in report.warnings:
        logger.warning("configuration: %s", warning)
    if report.config is None:
        first, *others = report.errors
        more = f" (and {len(others)} more: --check-config lists all)" if others else ""
        raise ConfigError(f"Failed to load config: {report.reason}: {first}{more}", report.errors)
    return report.config


def examine(data: bytes | str) -> Report:
    """The configuration in *data* with everything that is wrong or odd in it."""
    findings = Findings()
    raw_bytes = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    text = _decode(raw_bytes, findings)
    if text is None:
        return _report(None, "", findings, UNPARSABLE)
    raw, syntax = _parse_json(text)
    if not syntax:
        if isinstance(raw, dict) and _is_version_2(raw):
            return _report(read_v2(raw, findings), "version 2 JSON", findings, INVALID)
        if isinstance(raw, dict) and "device" not in raw and raw.keys() & _V2_SECTIONS:
            return _not_version_2(raw, findings, "a file without device")
        return _report(read_v1(raw, findings), "version 1 JSON", findings, UNPARSABLE)
    if not text.strip():
        findings.syntax("the file is empty")
        return _report(None, "", findings, UNPARSABLE)
    raw, toml_syntax = _parse_toml(text)
    if toml_syntax:
        looks_like_json = text.lstrip()[:1] in ("{", "")
        findings.syntax(syntax if looks_like_json else toml_syntax)
        return _report(None, "", findings, UNPARSABLE)
    if not _is_version_2(raw):
        return _not_version_2(raw, findings, "a TOML file")
    return _report(read_v2(raw, findings), "version 2 TOML", findings, INVALID)


def local_config_text(blob_dir: str) -> str:
    """The configuration that `--localfs-dir` stands for: blobs and their cache in *blob_dir*."""
    return json.dumps(
        {
            "device": {
                "backend": {"type": "localfs", "config": {"dir": blob_dir}},
                "cache": {
                    "type": "blobcache",
                    "compressed": False,
                    "config": {"work_dir": blob_dir},
                },
            },
            "mode": "direct",
            "digest_validate": False,
            "iostats_files": False,
        }
    )


def _report(config: Config | None, kind: str, findings: Findings, invalid: str) -> Report:
    if config is not None and not findings.errors:
        for name in ("backend", "cache", "rafs"):
            if getattr(config, name) is None:
                findings.bad_value("", f"no configuration information for {name}")
    errors = tuple(findings.errors)
    if not errors:
        reason = ""
    elif findings.malformed:
        reason = UNPARSABLE
    else:
        reason = invalid if findings.invalid else UNSUPPORTED
    return Report(None if errors else config, kind, reason, errors, tuple(findings.warnings))


def _is_version_2(raw: dict[str, Any]) -> bool:
    version = raw.get("version")
    return isinstance(version, int) and not isinstance(version, bool) and version == VERSION_2


def _not_version_2(raw: dict[str, Any], findings: Findings, what: str) -> Report:
    """For *what* can only be version 2, and does not say that it is."""
    version = raw.get("version")
    if isinstance(version, int) and not isinstance(version, bool):
        findings.bad_value("version", f"not 2, which {what} needs")
    elif "version" in raw:
        findings.wrong_kind("version", version, "2")
    else:
        findings.syntax(f"version: missing: {what} needs version 2")
    return _report(None, "", findings, INVALID)


def _decode(data: bytes, findings: Findings) -> str | None:
    if len(data) > MOST_BYTES:
        findings.syntax(f"{TOO_BIG}: more than {MOST_BYTES} bytes")
        return None
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        findings.syntax("the file begins with a byte order mark: save it as UTF-8 without one")
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        findings.syntax(f"not UTF-8: byte 0x{data[exc.start]:02x} at offset {exc.start}")
        return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON has")


def _parse_json(text: str) -> tuple[object, str]:
    """What *text* holds and "", or nothing and why it is no JSON."""
    try:
        raw = json.loads(text, object_pairs_hook=Table, parse_constant=_refuse_constant)
    except json.JSONDecodeError as exc:
        hint = ""
        if text.startswith(("//", "/*", "#"), exc.pos):
            hint = "; comments are not allowed in JSON"
        return None, f"not JSON: line {exc.lineno}, column {exc.colno}: {exc.msg}{hint}"
    except RecursionError:
        return None, "not usable JSON: nested too deep"
    except ValueError as exc:  # NaN, or a number of thousands of digits
        return None, f"not usable JSON: {str(exc).partition(';')[0]}"
    return raw, ""


def _parse_toml(text: str) -> tuple[dict[str, Any], str]:
    """The table that *text* holds and "", or nothing and why it is no TOML."""
    for part in _TOML_KEY_END.split(_TOML_TEXT_OR_COMMENT.sub("", text)):
        if part.count(".") > MOST_KEY_DOTS:
            return {}, f"not usable TOML: a key with more than {MOST_KEY_DOTS} dots"
    import tomllib  # not for the JSON that every container start brings

    try:
        return tomllib.loads(text), ""
    except RecursionError:
        return {}, "not usable TOML: nested too deep"
    except ValueError as exc:  # TOMLDecodeError is one; so is a number of thousands of digits
        return {}, f"not TOML: {str(exc).partition(';')[0]}"
