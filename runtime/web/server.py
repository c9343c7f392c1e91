"""A small HTTP server for a room of phones: a fixed table of files, a few places to post to, and limits on all of it.

One request a connection. A connection lives for a limited time, whatever it does: that covers slow headers, slow
bodies and slow readers alike. Paths are looked up, never joined to a folder. Nothing is logged, because the address
holds the token.
"""

from __future__ import annotations

import contextlib
import hmac
import http
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Understood in a secure context only: elsewhere browsers complain about them."""

_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """What the server allows.

    Attributes:
        connections: open at once; more are closed at once. A browser opens up to six.
        connection_s: how long one may live.
        idle_s: how long it may be silent.
    """

    connections: int = 512
    connection_s: float = 60.0
    idle_s: float = 10.0


@dataclass(frozen=True)
class File:
    """What a path of the table holds."""

    content: bytes
    media_type: str
    encoding: str | None = None


@dataclass(frozen=True)
class Response:
    """What is answered to a post."""

    status: http.HTTPStatus
    content: bytes = b""
    media_type: str = "application/json"


@dataclass(frozen=True)
class Post:
    """A place to post to.

    Attributes:
        most: bytes of a body.
        least: bytes of a body.
        handle: answers a body; the second argument is the `User-Agent`.
    """

    most: int
    least: int
    handle: Callable[[bytes, str], Response]


class WebServer(ThreadingHTTPServer):
    """Serves `files` and what `route` knows, under a token.

    Args:
        address: to bind to; port 0 takes a free one.
        token: the first part of every path.
        files: by path behind the token; the empty path is the page.
        route: finds the place to post to, by path behind the token.
        tls: of the server, where it has a certificate.
    """

    daemon_threads = True  # Ctrl-C waits for nobody
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        *,
        token: str,
        files: Mapping[str, File],
        route: Callable[[str], Post | None],
        tls: ssl.SSLContext | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.token = token
        self.files = files
        self.route = route
        self.limits = limits
        self._tls = tls
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "https" if self._tls else "http"

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._lock:
            return len(self._open)

    def server_bind(self) -> None:
        """Bind, and look no name up: the one of `HTTPServer` asks the network for the machine's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.port

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Give a connection a thread, if there is room for it."""
        connection = cast(socket.socket, request)
        with self._lock:
            room = len(self._open) < self.limits.connections
            if room:
                self._open[connection] = time.monotonic() + self.limits.connection_s
        if room:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """One connection from beginning to end; the handshake happens here, so that a slow one keeps nobody waiting."""
        plain = talk = cast(socket.socket, request)
        try:
            with contextlib.suppress(OSError):  # the other side is gone or was cut off: nobody is there to be told
                plain.settimeout(self.limits.idle_s)
                if self._tls is not None:
                    talk = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                    with self._lock:
                        self._open[talk] = self._open.pop(plain)
                    talk.do_handshake()
                self.finish_request(talk, client_address)
        finally:
            with self._lock:
                self._open.pop(plain, None)
                self._open.pop(talk, None)
            self.shutdown_request(talk)

    def service_actions(self) -> None:
        """Cut off every connection whose time is up; called by the serving loop again and again."""
        now = time.monotonic()
        with self._lock:
            overdue = [connection for connection, end in self._open.items() if end < now]
            for connection in overdue:
                del self._open[connection]
        for connection in overdue:
            with contextlib.suppress(OSError):  # it may have gone by itself
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: WebServer
    protocol_version = "HTTP/1.0"
    server_version = "stage2"
    sys_version = ""

    def do_GET(self) -> None:
        """A file of the table."""
        path = self._inside()
        file = None if path is None else self.server.files.get(path)
        if file is None:
            self._answer(Response(http.HTTPStatus.NOT_FOUND))
            return
        self._answer(Response(http.HTTPStatus.OK, file.content, file.media_type), encoding=file.encoding)

    def do_POST(self) -> None:
        """A body of an allowed size, to one of the places."""
        path = self._inside()
        post = None if path is None else self.server.route(path)
        if post is None:
            self._answer(Response(http.HTTPStatus.NOT_FOUND))
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            self._answer(Response(http.HTTPStatus.LENGTH_REQUIRED))
            return
        size = int(length[:12])
        if size > post.most:
            self._answer(Response(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE))
            return
        if size < post.least:
            self._answer(Response(http.HTTPStatus.BAD_REQUEST))
            return
        body = self.rfile.read(size)
        if len(body) == size:
            self._answer(post.handle(body, self.headers.get("User-Agent", "")))

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the path holds the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """An error that the library found (a malformed request, an unknown method), without its page."""
        self._answer(Response(http.HTTPStatus(code)))

    def _inside(self) -> str | None:
        """The path behind the token; None for whoever may not ask."""
        if not self._asked_here():
            return None
        _, token, *rest = [*self.path.split("/", 2), "", ""][:3]
        right = hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode())
        return rest[0] if right and self.path.startswith(f"/{token}/") else None

    def _asked_here(self) -> bool:
        """Whether `Host` is the address that was connected to, and `Origin`, where there is one, is ours.

        A page of another site whose name was pointed at this address has that name as its host.
        """
        host = self.headers.get("Host", "")
        address = ipaddress.ip_address(str(self.connection.getsockname()[0]).partition("%")[0])
        literal = f"[{address}]" if address.version == 6 else str(address)
        names = {literal, "localhost"} if address.is_loopback else {literal}
        usual = {"http": 80, "https": 443}[self.server.scheme] == self.server.port
        known = names if usual else {f"{name}:{self.server.port}" for name in names}
        return host in known and self.headers.get("Origin") in (None, f"{self.server.scheme}://{host}")

    def _secure(self) -> bool:
        local = ipaddress.ip_address(str(self.connection.getsockname()[0]).partition("%")[0])
        return self.server.scheme == "https" or local.is_loopback

    def _answer(self, reply: Response, *, encoding: str | None = None) -> None:
        self.close_connection = True
        self.send_response_only(reply.status)
        for name, value in (HEADERS | ISOLATED if self._secure() else HEADERS).items():
            self.send_header(name, value)
        if reply.content:
            self.send_header("Content-Type", reply.media_type)
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(reply.content)))
        self.end_headers()
        for start in range(0, len(reply.content), _CHUNK):
            self.wfile.write(reply.content[start : start + _CHUNK])
