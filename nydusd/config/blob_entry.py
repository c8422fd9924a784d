"""Blob cache entries: images that a singleton daemon is told of, each with a configuration.

An entry names a bootstrap, a domain that shares its blobs, and backend and cache in one of two
shapes (spec: cli-and-config, blob cache entries): `config`, whose keys are those of version 1 with
other names, or `config_v2`, which is a configuration of version 2 without `rafs`.
"""

from typing import Any, Final

from nydusd.base.errors import ConfigError
from nydusd.base.record import NamedTuple
from nydusd.config import model
from nydusd.config.findings import Findings
from nydusd.config.model import FILE_CACHE_TYPES
from nydusd.config.v1 import read_v1
from nydusd.config.v2 import read_v2

BOOTSTRAP: Final = "bootstrap"
DATA_BLOB: Final = "datablob"
KINDS: Final = (BOOTSTRAP, DATA_BLOB)
CACHE_TYPES: Final = ("fscache", *FILE_CACHE_TYPES)


class BlobEntry(NamedTuple):
    """One image of a singleton daemon."""

    kind: str  # BOOTSTRAP, DATA_BLOB, or a word that nobody knows
    id: str  # of the bootstrap: the cookie by which the kernel asks for it
    domain_id: str  # images of one domain share blobs; the volume by which the kernel asks
    backend: model.Backend
    cache: model.Cache
    metadata_path: str  # where the bootstrap lies
    text: str = ""  # JSON as it was given, for a successor; holds secrets

    def __repr__(self) -> str:
        """What it names, without what may hold secrets."""
        return f"BlobEntry({self.kind} {self.domain_id!r}/{self.id!r}: {self.metadata_path!r})"


def make_entry(fields: dict[str, Any], text: str = "") -> BlobEntry:
    """The entry that *fields* describe; `ConfigError` when its configuration cannot be used.

    `type` and `id` must be there as texts. Whether the entry makes sense is for its user to know.
    """
    findings = Findings()
    short, long = fields.get("config"), fields.get("config_v2")
    if isinstance(long, dict):  # the reference prefers it too
        known = {key: value for key, value in long.items() if key not in ("rafs", "metadata_path")}
        config, source = read_v2(known, findings), long
    elif isinstance(short, dict):
        config, source = read_v1(as_version_1(short), findings), short
    else:
        raise ConfigError("a blob entry needs config or config_v2")
    path = source.get("metadata_path")
    if path is not None and (not isinstance(path, str) or "\0" in path):
        findings.wrong_kind("metadata_path", path, "text without NUL")
        path = None
    if config.backend is None or config.cache is None:
        findings.bad_value("", "a blob entry needs backend and cache")
    if findings.errors or config.backend is None or config.cache is None:
        errors = tuple(findings.errors)
        raise ConfigError(f"blob entry: {errors[0]}", errors)
    return BlobEntry(
        fields["type"],
        fields["id"],
        fields.get("domain_id") or "",
        config.backend,
        config.cache,
        path or "",
        text,
    )


def as_version_1(short: dict[str, Any]) -> dict[str, Any]:
    """The keys of *short* at the places that version 1 has for them."""
    converted: dict[str, Any] = {
        "mode": "direct",
        "device": {
            "id": short.get("id", ""),
            "backend": {
                "type": short.get("backend_type"),
                "config": short.get("backend_config"),
            },
            "cache": {
                "type": short.get("cache_type", ""),
                "config": short.get("cache_config", {}),
            },
        },
    }
    if short.get("prefetch_config") is not None:
        converted["fs_prefetch"] = short["prefetch_config"]
    return converted
