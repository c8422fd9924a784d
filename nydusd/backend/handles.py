"""libcurl's easy handles: how one is set up for a request, and what its error codes mean.

Setting up takes some forty calls, so handles are kept, one shelf for each way of connecting, and
only what differs between two requests is set again. The transfer thread's alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pycurl

from nydusd.base.errors import FailureKind

if TYPE_CHECKING:
    from nydusd.backend.reply import Reply
    from nydusd.backend.request import Request, Tls

RECEIVE_BYTES = 1 << 16  # one recv; libcurl hands it on in pieces of 16 KiB (decision 0018)
STALL_SECONDS = 30  # without a byte ends a request that has no time limit
SHELF_ROOM = 64
# Where distributions keep the certificates that they trust; the copy of libcurl that pycurl comes
# with may have been built to look elsewhere.
SYSTEM_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

UNREACHABLE = {
    pycurl.E_COULDNT_RESOLVE_PROXY,
    pycurl.E_COULDNT_RESOLVE_HOST,
    pycurl.E_COULDNT_CONNECT,
    pycurl.E_INTERFACE_FAILED,
}
BROKEN = {
    pycurl.E_GOT_NOTHING,
    pycurl.E_PARTIAL_FILE,
    pycurl.E_RECV_ERROR,
    pycurl.E_SEND_ERROR,
    pycurl.E_UNSUPPORTED_PROTOCOL,
    pycurl.E_BAD_CONTENT_ENCODING,
    8,  # CURLE_WEIRD_SERVER_REPLY; pycurl has no name for this one and the next two
    16,  # CURLE_HTTP2
    92,  # CURLE_HTTP2_STREAM
}
TLS = {
    pycurl.E_SSL_CONNECT_ERROR,
    pycurl.E_PEER_FAILED_VERIFICATION,
    pycurl.E_SSL_CERTPROBLEM,
    pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_CACERT_BADFILE,
    pycurl.E_SSL_ISSUER_ERROR,
}
# Part of OpenSSL's or libcurl's words -> what to do about it.
NO_TLS_THERE = "the server does not speak TLS there"
TLS_ADVICE = (
    ("wrong version number", f"{NO_TLS_THERE}: is scheme http meant?"),
    ("packet length too long", f"{NO_TLS_THERE}: is scheme http meant?"),
    ("record overflow", f"{NO_TLS_THERE}: is scheme http meant?"),
    ("http request", f"{NO_TLS_THERE}: is scheme http meant?"),
    ("self-signed", "add the CA to ca_cert_files, or set skip_verify"),
    ("self signed", "add the CA to ca_cert_files, or set skip_verify"),
    ("unable to get local issuer", "add the CA to ca_cert_files, or set skip_verify"),
    ("expired", "the server's certificate is out of date"),
    ("subject name", "the certificate is for another name"),
    ("certificate required", "the server wants a client certificate"),
)


def explain(code: int, text: str) -> tuple[FailureKind, str]:
    """What kind of failure libcurl's *code* is, and its *text* made printable, with advice."""
    words = "".join(c if c.isprintable() else " " for c in text[:200]) or f"libcurl error {code}"
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return FailureKind.TIMEOUT, words
    if code in UNREACHABLE:
        return FailureKind.UNREACHABLE, words
    if code in TLS:
        lower = words.lower()
        advice = next((f" ({advice})" for part, advice in TLS_ADVICE if part in lower), "")
        return FailureKind.TLS, words + advice
    if code in BROKEN:
        return FailureKind.BROKEN, words
    if code == pycurl.E_URL_MALFORMAT:
        return FailureKind.CONFIG, "the URL cannot be used"
    return FailureKind.OTHER, words


class TrustedCertificates:
    """Files of certificates for libcurl, which takes only one: the system's and others in one.

    They are put together in memory, under a path, so that libcurl reads them once for many
    connections (it keeps what it has read from a file, not what it was handed).
    """

    def __init__(self) -> None:
        self._files: dict[object, int] = {}  # names and times of the extra files -> memfd

    def path(self, extra: tuple[str, ...]) -> str | None:
        """A file with the system's certificates and those of *extra*; `OSError` names the file."""
        system = os.environ.get("SSL_CERT_FILE") or next(
            (file for file in SYSTEM_CA_FILES if Path(file).is_file()), None
        )
        if not extra:
            return system
        state = tuple((file, Path(file).stat().st_mtime_ns) for file in extra)
        fd = self._files.get(state)
        if fd is None:
            parts = [Path(file).read_bytes() for file in (*([system] if system else []), *extra)]
            fd = self._files[state] = os.memfd_create("certificates", os.MFD_CLOEXEC)
            with os.fdopen(os.dup(fd), "wb") as target:
                target.write(b"\n".join(parts))
        return f"/proc/self/fd/{fd}"

    def close(self) -> None:
        """Let go of what was put together."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()


class HandleStore:
    """Easy handles, ready for requests; those of GET requests are used again."""

    def __init__(self) -> None:
        self._shelves: dict[object, list[pycurl.Curl]] = {}
        self._certificates = TrustedCertificates()

    def take(self, request: Request, reply: Reply) -> pycurl.Curl:
        """A handle that will do *request* and feed *reply*."""
        shelf = self._shelves.get(_way(request)) if request.method == "GET" else None
        curl = shelf.pop() if shelf else self._new(request)
        try:
            self._set_request(curl, request, reply)
        except BaseException:
            curl.close()
            raise
        return curl

    def give_back(self, curl: pycurl.Curl, request: Request, code: int = 0) -> None:
        """Keep *curl*, which did *request* with libcurl's *code*, for the next of its kind."""
        shelf = self._shelves.setdefault(_way(request), [])
        if code in TLS:
            # Set up with certificates that may have been renewed since.
            for old in (curl, *shelf):
                old.close()
            shelf.clear()
            return
        if request.method != "GET" or len(shelf) >= SHELF_ROOM:
            curl.close()
            return
        # Who finished is not kept alive by the handle.
        curl.setopt(pycurl.WRITEFUNCTION, _ignore)
        curl.setopt(pycurl.HEADERFUNCTION, _ignore)
        shelf.append(curl)

    def close(self) -> None:
        """Close every handle."""
        for shelf in self._shelves.values():
            for curl in shelf:
                curl.close()
        self._shelves.clear()
        self._certificates.close()

    def _new(self, request: Request) -> pycurl.Curl:
        """A handle with all that is common to requests of the same way of connecting."""
        curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.BUFFERSIZE, RECEIVE_BYTES)
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        curl.setopt(pycurl.PROXY, request.proxy)  # "" = none, not even that of the environment
        if request.unix_socket:
            curl.setopt(pycurl.UNIX_SOCKET_PATH, request.unix_socket)
        if request.connect_timeout:
            curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(request.connect_timeout * 1000)))
        if request.url[:6].lower() == "https:":
            self._set_tls(curl, request.tls)
            # Rather share one HTTP/2 connection than open one for each request that waits.
            curl.setopt(pycurl.PIPEWAIT, 1)
        return curl

    def _set_tls(self, curl: pycurl.Curl, tls: Tls) -> None:
        curl.setopt(pycurl.SSL_VERIFYPEER, int(tls.verify))
        curl.setopt(pycurl.SSL_VERIFYHOST, 2 if tls.verify else 0)
        if path := self._certificates.path(tls.ca_files):
            curl.setopt(pycurl.CAINFO, path)
        if tls.certificate_file:
            curl.setopt(pycurl.SSLCERT, tls.certificate_file)
            curl.setopt(pycurl.SSLKEY, tls.key_file or tls.certificate_file)

    def _set_request(self, curl: pycurl.Curl, request: Request, reply: Reply) -> None:
        headers = [f"{name}: {value}" for name, value in request.headers]
        if request.offset is not None:
            last = request.offset + request.wanted_bytes() - 1
            headers.append(f"range: bytes={request.offset}-{last}")
        if any(c in line for line in headers for c in "\r\n\0"):
            raise ValueError("a header with a line break")
        curl.setopt(pycurl.URL, request.url)
        curl.setopt(pycurl.HTTPHEADER, headers)
        curl.setopt(
            pycurl.TIMEOUT_MS, max(1, int(request.timeout * 1000)) if request.timeout else 0
        )
        curl.setopt(pycurl.LOW_SPEED_LIMIT, 0 if request.timeout else 1)
        curl.setopt(pycurl.LOW_SPEED_TIME, 0 if request.timeout else STALL_SECONDS)
        curl.setopt(pycurl.HEADERFUNCTION, reply.take_header)
        curl.setopt(pycurl.WRITEFUNCTION, reply.take_body)
        if request.method == "HEAD":
            curl.setopt(pycurl.NOBODY, 1)
        elif request.method == "POST":
            curl.setopt(pycurl.POST, 1)
            curl.setopt(pycurl.POSTFIELDS, request.body)
        elif request.method != "GET":
            raise ValueError("a method that is not known")


def _way(request: Request) -> object:
    """What requests have in common that may use each other's handles."""
    secure = request.url[:6].lower() == "https:"
    return (
        secure,
        request.tls if secure else None,
        request.proxy,
        request.unix_socket,
        request.connect_timeout,
    )


def _ignore(_piece: bytes) -> None:
    """Nothing is expected."""
