"""What is wrong with a single value of a configuration, in words; "" when nothing is.

None quotes the value: it may hold a password. What the servers would refuse in any case is refused
here, where all mistakes are told at once; what only some servers refuse is left to them.
"""

import binascii
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

# Header names and values (RFC 9110, 5.1 and 5.5; ASCII, as clients of HTTP send nothing else), so
# that none can start another header.
HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
# What would end the path that a name is part of, or that no URL may have as it is.
_NO_PATH: Final = re.compile(r"[^\x21-\x7e]|[?#]")


def check_url(url: str) -> str:
    """What is wrong with *url* as the address of an HTTP server, or "" (so for an empty one)."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        sound = False
    if sound and url.isascii() and url.isprintable() and " " not in url:
        return ""
    return "is not a URL of the form http://host[:port]/… or https://…"


def check_host(url: str) -> str:
    """A mirror's host takes the place of scheme, host and port, so it has nothing else."""
    if not url:
        return "must not be empty"
    text = check_url(url)
    if not text and (urlsplit(url).path not in ("", "/") or "?" in url or "#" in url):
        text = "has a path, which would not be used: http://host[:port] or https://… is expected"
    return text


def check_endpoint(endpoint: str) -> str:
    """An endpoint is a host, with a port perhaps: the scheme has a key of its own."""
    if not endpoint or (not check_url(f"http://{endpoint}/") and "/" not in endpoint):
        return ""
    return "is not of the form name[:port]; the scheme has a key of its own"


def check_addr(addr: str) -> str:
    """Where blobs are served: a URL, or a unix socket by its path."""
    is_path = "://" not in addr and ("/" in addr or ":" not in addr)
    if is_path or not check_url(addr):
        return ""
    return "is neither a URL of the form http://host[:port]/… or https://… nor a path"


def check_repo(repo: str) -> str:
    """A repository's name stands in the path of every request."""
    if not _NO_PATH.search(repo):
        return ""
    return "has a space, ? or #, or another character that no repository's name has"


def check_bucket(bucket: str) -> str:
    """A bucket's name is one part of a path, or of a host's name."""
    if "/" not in bucket and not _NO_PATH.search(bucket):
        return ""
    return (
        "has a slash, a space or another character that no bucket's name has; "
        "what stands before the names of blobs is object_prefix"
    )


def check_auth(auth: str | None) -> str:
    """Credentials are sent as they are, in the form that HTTP has for them (RFC 7617, 2)."""
    if not auth:
        return ""
    try:
        plain = binascii.a2b_base64(auth, strict_mode=True)
    except ValueError:  # so for characters beyond ASCII
        return "Invalid base64 encoded registry auth config"
    return "" if b":" in plain else "Invalid registry auth config: user:password expected"


def check_token(token: str | None) -> str:
    """A token is a part of a header."""
    if not token or HEADER_VALUE.fullmatch(token):
        return ""
    return "has a line break or another character that no header may have"


def check_headers(headers: Mapping[str, str]) -> str:
    """Each name and value must be one of HTTP; the first that is none is told by its place."""
    for number, (name, value) in enumerate(headers.items(), 1):
        if not HEADER_NAME.fullmatch(name):
            return f"the name of header {number} has a character that no header's name may have"
        if not HEADER_VALUE.fullmatch(value):
            return (
                f"the value of header {number} has a line break or another character "
                "that no header may have"
            )
    return ""
