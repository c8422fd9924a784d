"""What a remote image needs before its first read, got while nobody waits for it yet.

The first read of a v6 blob needs the blob's table of chunks, and with it a connection and perhaps
a login: three and more round trips before the first byte. One thread for each mount asks for the
tables as soon as the image is mounted (as the reference does); the first reader finds them, or
waits for the rest. A failure is left to that reader, who tries again and tells it.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nydusd.cache.device import Device

logger = logging.getLogger("nydusd")


class Warmup:
    """Loads the descriptions of a device's blobs on a thread of its own."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stopped = False

    def start(self) -> None:
        """Begin; returns at once."""
        threading.Thread(target=self._run, name="warmup", daemon=True).start()

    def close(self) -> None:
        """Begin with no more blobs; one that is under way ends with its backend."""
        self._stopped = True

    def _run(self) -> None:
        for blob in self._device.blobs:
            if self._stopped:
                return
            if blob is None:
                continue
            try:
                blob.load_description()
            except Exception as exc:
                logger.debug("blob %s is not described yet: %s", blob.info.blob_id, exc)
