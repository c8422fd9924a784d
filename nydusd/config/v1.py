"""Version 1 of the format: legacy JSON, whose sections lie elsewhere but mean the same.

What differs from version 2: `device` holds backend and cache, each with its settings in `config`;
the keys of `rafs` lie at the top; one `fs_prefetch` drives both halves of prefetching.
"""

from typing import Any, Final

from nydusd.config import model
from nydusd.config.findings import Findings
from nydusd.config.model import FILE_CACHE_TYPES
from nydusd.config.schema import ANY, BOOL, TEXT, Key, Section, read_section
from nydusd.config.sections import (
    BACKENDS,
    EXTERNAL_BACKEND,
    FILE_CACHE,
    FS_CACHE,
    RAFS,
    check_backend,
    check_cache,
    one_of,
)

VERSION = 1
# The reference never let version 1 have "http-proxy", and no file can be relied on that does.
V1_BACKEND_TYPES: Final = tuple(name for name in BACKENDS if name != "http-proxy")

V1_BACKEND: Final = Section(
    dict, (Key("type", TEXT, None, required="1"), Key("config", ANY, required="1"))
)
V1_CACHE: Final = Section(
    dict,
    (
        Key("type", TEXT, ""),
        Key("compressed", BOOL, default=False),
        Key("validate", BOOL, default=False),
        Key("config", ANY),
    ),
)
NO_CACHE: Final = {"type": "", "compressed": False, "validate": False, "config": None}
V1_DEVICE: Final = Section(
    dict,
    (
        Key("id", TEXT, ""),
        Key("backend", section=V1_BACKEND, default={"type": None}, required="1"),
        Key("external_backends", sections=EXTERNAL_BACKEND, default=()),
        Key("cache", section=V1_CACHE, default=NO_CACHE),
    ),
)
V1_CONFIG: Final = Section(
    dict,
    (Key("device", section=V1_DEVICE, required="1"),),
    inline=(("rafs", RAFS),),
    # `id_mapping` and `warmup` are written by the containerd snapshotter.
    no_effect=("version", "id_mapping", "warmup"),
)


def read_v1(raw: object, findings: Findings) -> model.Config:
    """The configuration in *raw*, a parsed file of version 1; mistakes go to *findings*."""
    top = read_section(V1_CONFIG, raw, "", findings, VERSION)
    rafs: model.Rafs = top["rafs"]
    device: dict[str, Any] | None = top["device"]
    if isinstance(raw, dict) and "overlay" in raw:
        findings.bad_value("overlay", "needs a configuration of version 2")
    if device is None:
        return model.Config(rafs=rafs)
    has_prefetch = isinstance(raw, dict) and "fs_prefetch" in raw
    # Without `fs_prefetch` the cache's copy says "all" and "off": clients see it in the API.
    prefetch = rafs.prefetch if has_prefetch else model.NO_PREFETCH._replace(prefetch_all=True)
    return model.Config(
        id=device["id"],
        backend=_backend(device["backend"], findings),
        external_backends=device["external_backends"],
        cache=_cache(device["cache"], prefetch, findings),
        rafs=rafs,
    )


def _backend(raw: dict[str, Any], findings: Findings) -> model.Backend | None:
    path = "device.backend"
    kind = raw["type"]
    if kind is None:  # missing, which is noted already
        return None
    if text := one_of(kind, V1_BACKEND_TYPES):
        findings.bad_value(f"{path}.type", f"unsupported backend type: {text}")
        return None
    sound = len(findings.malformed)
    settings = read_section(BACKENDS[kind], raw["config"], f"{path}.config", findings, VERSION)
    backend = model.Backend(kind, **{kind: settings})
    if len(findings.malformed) > sound:
        return backend
    for name, text in check_backend(backend):
        findings.bad_value(f"{path}.config{name.removeprefix(kind)}", text)
    return backend


def _cache(raw: dict[str, Any], prefetch: model.Prefetch, findings: Findings) -> model.Cache:
    path = "device.cache"
    cache = model.Cache(raw["type"], raw["compressed"], raw["validate"], prefetch)
    settings = raw["config"]
    if cache.type in FILE_CACHE_TYPES:
        part = read_section(FILE_CACHE, settings, f"{path}.config", findings, VERSION)
        cache = cache._replace(filecache=part)
    elif cache.type == "fscache":
        part = read_section(FS_CACHE, settings, f"{path}.config", findings, VERSION)
        cache = cache._replace(fscache=part)
    for name, text in check_cache(cache):
        key = name.replace("filecache", "config").replace("fscache", "config")
        findings.bad_value(f"{path}.{key}", text)
    return cache
