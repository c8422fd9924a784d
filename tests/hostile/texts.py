"""Configurations, good ones and what is made of them: changed values, keys, nesting, encodings."""

from __future__ import annotations

import re
from random import Random

CONFIGS = {
    "v2 TOML": """version = 2
id = "image"
[backend]
type = "localfs"
[backend.localfs]
dir = "/tmp"
[cache]
type = "blobcache"
compressed = false
validate = true
[cache.filecache]
work_dir = "/tmp"
[cache.prefetch]
enable = true
threads = 8
batch_size = 1048576
bandwidth_limit = 10485760
[rafs]
mode = "direct"
batch_size = 1048576
validate = false
enable_xattr = true
""",
    "v2 JSON": """{"version": 2, "backend": {"type": "localfs", "localfs": {"dir": "/tmp"}},
 "cache": {"type": "filecache", "filecache": {"work_dir": "/tmp"},
 "prefetch": {"enable": true, "threads": 4, "batch_size": 131072}},
 "rafs": {"mode": "direct", "batch_size": 131072, "enable_xattr": true}}""",
    "v1 JSON": """{"device": {"backend": {"type": "localfs", "config": {"dir": "/tmp",
 "readahead": false}}, "cache": {"type": "blobcache", "compressed": false,
 "config": {"work_dir": "/tmp"}}}, "mode": "direct", "digest_validate": false,
 "iostats_files": false, "enable_xattr": true, "amplify_io": 1048576,
 "fs_prefetch": {"enable": true, "threads_count": 2, "merging_size": 131072}}""",
    "v1 registry": """{"device": {"backend": {"type": "registry", "config": {"scheme": "https",
 "host": "localhost", "repo": "a/b", "auth": "dTpw", "timeout": 5, "connect_timeout": 5,
 "retry_limit": 2, "proxy": {"url": "http://localhost:1", "fallback": true,
 "check_interval": 5}}}, "cache": {"type": "dummycache"}}, "mode": "direct"}""",
}
VALUES = [
    "0",
    "-1",
    "1",
    "2.5",
    "1e400",
    "18446744073709551616",
    "9" * 5000,
    "0x10",
    "true",
    "null",
    '""',
    '"\\u0000"',
    '"\\ud800"',
    '"' + "x" * 70000 + '"',
    '"../../etc"',
    "[]",
    "{}",
    "[" * 2000,
    "[" * 500 + "]" * 500,
    '{"a":' * 600 + "1" + "}" * 600,
    "NaN",
    "1979-05-27T07:32:00Z",
]
VALUE = re.compile(rb'"[^"\n]*"|\b\d+\b|\btrue\b|\bfalse\b')
WORD = re.compile(rb"[A-Za-z_]+")


def change(text: bytes, rng: Random) -> bytes:
    """*text* with one to four changes."""
    for _ in range(rng.randint(1, 4)):
        text = _change(text, rng)[: 1 << 20]
    return text


def _change(text: bytes, rng: Random) -> bytes:
    kind = rng.randrange(8)
    lines = text.split(b"\n")
    if kind <= 2:
        places = list(VALUE.finditer(text))
        if places:
            place = rng.choice(places)
            new = rng.choice(VALUES).encode()
            return text[: place.start()] + new + text[place.end() :]
    if kind == 3:
        words = list(WORD.finditer(text))
        if words:
            one, other = rng.choice(words), rng.choice(words)
            return text[: one.start()] + other.group() + text[one.end() :]
    if kind == 4:
        lines.insert(rng.randint(0, len(lines)), rng.choice(lines))
        return b"\n".join(lines)
    if kind == 5:
        del lines[rng.randrange(len(lines))]
        return b"\n".join(lines)
    if kind == 6:
        raw = bytearray(text)
        for _ in range(rng.randint(1, 4)):
            if raw:
                raw[rng.randrange(len(raw))] = rng.getrandbits(8)
        return bytes(raw)
    return text[: rng.randint(0, len(text))]
