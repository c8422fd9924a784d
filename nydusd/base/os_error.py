"""Errors of the system in the words that clients of the reference search for."""

from typing import Final

ERROR_KINDS: Final = {
    1: "PermissionDenied",
    2: "NotFound",
    11: "WouldBlock",
    13: "PermissionDenied",
    16: "ResourceBusy",
    17: "AlreadyExists",
    20: "NotADirectory",
    22: "InvalidInput",
    28: "StorageFull",
    30: "ReadOnlyFilesystem",
    32: "BrokenPipe",
    95: "Unsupported",
    104: "ConnectionReset",
    110: "TimedOut",
    111: "ConnectionRefused",
}


def quoted(text: str) -> str:
    """*text* in double quotes, with what is not printable escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in escaped) + '"'


def debug_os_error(exc: OSError) -> str:
    """*exc* as `Os { code: 2, kind: NotFound, message: "No such file or directory" }`."""
    number = exc.errno or 5
    kind = ERROR_KINDS.get(number, "Uncategorized")
    return f"Os {{ code: {number}, kind: {kind}, message: {quoted(exc.strerror or '')} }}"


def debug_custom_error(kind: str, message: str) -> str:
    """An error with words of its own, as `Custom { kind: Other, error: "..." }`."""
    return f"Custom {{ kind: {kind}, error: {quoted(message)} }}"
