"""What becomes of the requests that a former owner of a session took and did not answer.

The kernel keeps them with the open /dev/fuse file. Called before the new owner's first read, when
the old one is gone.
"""

import logging
import os
from pathlib import Path

from nydusd.fuse import channel

logger = logging.getLogger("nydusd")

CONNECTIONS = Path("/sys/fs/fuse/connections")


def drain(policy: str, connection: int) -> None:
    """Have the requests sent again (`resend`), ended (`flush`), or leave them (`none`).

    *connection* is the number of the FUSE connection, -1 when it is not known. Kernels before 6.9
    cannot send again and none of the official ones can flush: what a patched one has is tried. A
    kernel that cannot flush is asked to send again, as callers would hang for good otherwise.
    Nothing fails: what cannot be done is logged.
    """
    if policy == "none":
        return
    if policy == "flush":
        if _ask(connection, "flush"):
            return
        logger.warning("the kernel cannot flush requests of connection %d: resend", connection)
    code = channel.ask_to_resend()
    if code < 0 and not _ask(connection, "resend"):
        logger.warning(
            "Failed to drain fuse requests: %s; what the last daemon had taken stays unanswered",
            os.strerror(-code),
        )


def _ask(connection: int, action: str) -> bool:
    """Whether the kernel has *action* for the connection, and took the order."""
    if connection < 0:
        return False
    try:
        order = os.open(CONNECTIONS / str(connection) / action, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(order, b"1")
        finally:
            os.close(order)
    except OSError:
        return False
    return True
