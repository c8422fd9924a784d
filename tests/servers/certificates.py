"""Certificates for servers on loopback, made by openssl when a test asks for them."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


class Authority:
    """A certificate authority in *folder* that signs for any host; `file` is its certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = folder / "authority.pem"
        self._key = folder / "authority.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "30", "-subj", "/CN=test authority"),
            *("-keyout", str(self._key), "-out", str(self.file)),
        )

    def pair(self, *names: str, days: int = 30) -> tuple[Path, Path]:
        """Files of a certificate for the host *names* (or addresses) and of its key."""
        stem = self.folder / names[0].replace("*", "any").replace(":", "_")
        key, request, certificate = (stem.with_suffix(f".{end}") for end in ("key", "csr", "pem"))
        kinds = ("IP" if name.replace(".", "").isdigit() else "DNS" for name in names)
        alternatives = ",".join(f"{kind}:{name}" for kind, name in zip(kinds, names, strict=True))
        extensions = stem.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={alternatives}\n")
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={names[0]}", "-keyout", str(key), "-out", str(request)),
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-days", str(days), "-out", str(certificate)),
            *("-CA", str(self.file), "-CAkey", str(self._key), "-CAcreateserial"),
            *("-extfile", str(extensions)),
        )
        return certificate, key

    def context(self, *names: str) -> ssl.SSLContext:
        """The server side of TLS for the host *names*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pair(*names))
        return context


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
