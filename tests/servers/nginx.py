"""nginx from the distribution, as a mirror or as the TLS end before another server.

Serves the files of a folder, or passes everything on to an upstream; by plain HTTP or TLS, then
with HTTP/2. A process in the foreground with its own folder for all that it writes.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.servers.ports import free_port

START_TIMEOUT_S = 60
PROGRAM = shutil.which("nginx", path="/usr/sbin:/usr/bin")

CONFIG = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log {folder}/access.log; types {{ }} default_type application/octet-stream;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port}{tls};
        {certificate}
        location / {{ {location} }}
    }}
}}
"""


class Nginx:
    """A running nginx; `url` is where it listens."""

    def __init__(
        self,
        folder: Path,
        *,
        root: Path | None = None,
        upstream: str = "",
        certificate: tuple[Path, Path] | None = None,
        client_authority: Path | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"{'https' if certificate else 'http'}://localhost:{self.port}"
        location = f"root {root};" if root else f"proxy_pass {upstream};"
        lines = ""
        if certificate:
            lines = f"ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]};"
        if client_authority:
            lines += f" ssl_client_certificate {client_authority}; ssl_verify_client on;"
        text = CONFIG.format(
            folder=folder,
            port=self.port,
            tls=" ssl http2" if certificate else "",
            certificate=lines,
            location=location,
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "nginx.conf").write_text(text)

    def __enter__(self) -> Nginx:
        assert PROGRAM is not None
        self._process = subprocess.Popen(
            [PROGRAM, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
                raise RuntimeError((self.folder / "error.log").read_text())
            time.sleep(0.01)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def requests(self) -> list[str]:
        """The lines of the access log."""
        return (self.folder / "access.log").read_text().splitlines()


def listens(port: int) -> bool:
    """Whether somebody accepts connections on *port*."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
