"""The server of `stage2 serve` against requests that no page of it would send."""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from http import HTTPStatus
from pathlib import Path

import pytest

from litehrnet_stage2.runtime.web import server as server_module
from litehrnet_stage2.runtime.web.server import File, Limits, Post, Response, WebServer

TOKEN = "an-unguessable-token"
FILES = {
    "": File(b"<!doctype html>", "text/html; charset=utf-8"),
    "model/web": File(bytes(1000), "application/octet-stream"),
    "ort.wasm": File(b"compressed", "application/wasm", "gzip"),
}


@pytest.fixture
def start() -> Iterator[Callable[..., WebServer]]:
    """A function that starts a server on loopback, with limits; what is posted to `codes` comes back."""
    started: list[WebServer] = []

    def make(limits: Limits = Limits(), tls: ssl.SSLContext | None = None) -> WebServer:  # noqa: B008 - frozen
        def route(path: str) -> Post | None:
            return Post(16, 16, lambda body, _: Response(HTTPStatus.OK, body)) if path == "codes" else None

        server = WebServer(("127.0.0.1", 0), token=TOKEN, files=FILES, route=route, tls=tls, limits=limits)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        started.append(server)
        return server

    yield make
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(start: Callable[..., WebServer]) -> WebServer:
    return start()


def ask(
    server: WebServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    found = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return found


def raw(server: WebServer, request: bytes) -> bytes:
    """What comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


def is_ended(connection: socket.socket) -> bool:
    """Whether the other side closed the connection."""
    connection.settimeout(0.01)
    try:
        return connection.recv(4096, socket.MSG_PEEK) == b""
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(20)


def settles(server: WebServer, connections: int) -> bool:
    """Whether so many connections are open soon."""
    end = time.monotonic() + 20
    while server.connections != connections and time.monotonic() < end:
        time.sleep(0.02)
    return server.connections == connections


def test_what_is_in_the_table_is_served(server: WebServer) -> None:
    status, headers, content = ask(server, "GET", f"/{TOKEN}/")
    assert (status, content) == (200, b"<!doctype html>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert ask(server, "GET", f"/{TOKEN}/ort.wasm")[1]["Content-Encoding"] == "gzip"
    assert ask(server, "POST", f"/{TOKEN}/codes", bytes(range(16)))[::2] == (200, bytes(range(16)))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/model/web",
        f"/{TOKEN}",
        f"/{TOKEN}x/",
        f"/{TOKEN[:-1]}/",
        f"/{TOKEN.upper()}/",
        f"/./{TOKEN}/",
        "/%61n-unguessable-token/",
        f"/{TOKEN}/model",
        f"/{TOKEN}/model/",
        f"/{TOKEN}/model/web?x",
        f"/{TOKEN}/../{TOKEN}/",
        f"/{TOKEN}/../../../../etc/passwd",
        f"/{TOKEN}/..%2f..%2fetc/passwd",
        f"/{TOKEN}/%2e%2e/%2e%2e/etc/passwd",
        f"/{TOKEN}/..\\..\\etc\\passwd",
        f"/{TOKEN}//etc/passwd",
        f"/{TOKEN}/model/web%00",
        f"http://127.0.0.1/{TOKEN}/",
    ],
)
def test_no_other_path_exists(server: WebServer, path: str) -> None:
    assert ask(server, "GET", path)[0] == 404
    assert ask(server, "POST", path, bytes(16))[0] == 404


def test_the_token_is_compared_in_constant_time(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(server_module.hmac, "compare_digest", compare)
    ask(server, "GET", "/wrong/model/web")
    ask(server, "GET", f"/{TOKEN}/model/web")
    assert compared == [(b"wrong", TOKEN.encode()), (TOKEN.encode(), TOKEN.encode())]


def test_nothing_is_logged(server: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    said = io.StringIO()
    with redirect_stderr(said), caplog.at_level(logging.DEBUG):
        ask(server, "GET", f"/{TOKEN}/")
        ask(server, "GET", f"/{TOKEN}/nothing")
        raw(server, f"BREW /{TOKEN}/ HTTP/1.1\r\n\r\n".encode())
        raw(server, b"GET /" + TOKEN.encode() + b"/ HTTP/x\r\n\r\n")
    assert said.getvalue() == ""
    assert caplog.text == ""


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.2", "evil.example:{port}", "127.0.0.1:1", "", "127.0.0.1"])
def test_a_host_that_is_not_the_address_connected_to_is_refused(server: WebServer, host: str) -> None:
    assert ask(server, "GET", f"/{TOKEN}/", Host=host.format(port=server.port))[0] == 404
    assert ask(server, "POST", f"/{TOKEN}/codes", bytes(16), Host=host.format(port=server.port))[0] == 404


def test_a_post_from_another_site_is_refused(server: WebServer) -> None:
    assert ask(server, "POST", f"/{TOKEN}/codes", bytes(16), Origin="http://evil.example")[0] == 404
    assert ask(server, "POST", f"/{TOKEN}/codes", bytes(16), Origin=f"http://127.0.0.1:{server.port}")[0] == 200
    assert ask(server, "GET", f"/{TOKEN}/", Host=f"localhost:{server.port}")[0] == 200


def test_a_size_is_judged_before_a_byte_of_the_body_is_read(server: WebServer) -> None:
    head = f"POST /{TOKEN}/codes HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    for length, status in (
        (f"Content-Length: {10**9}", 413),
        (f"Content-Length: {'9' * 400}", 413),
        ("Content-Length: 17", 413),
        ("Content-Length: 15", 400),
        ("Content-Length: -1", 411),
        ("Content-Length: 1e3", 411),
        ("Content-Length: ²", 411),
        ("X: y", 411),
        ("Transfer-Encoding: chunked", 411),
        ("Content-Length: 16\r\nTransfer-Encoding: chunked", 411),
    ):
        answered = raw(server, f"{head}{length}\r\n\r\n".encode("latin-1"))
        assert answered.startswith(f"HTTP/1.0 {status} ".encode()), (length, answered[:40])


def test_a_malformed_request_gets_an_error_and_no_page(server: WebServer) -> None:
    for request in (
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET\r\n\r\n",
        b"PUT / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
    ):
        assert b"<" not in raw(server, request)
    assert raw(server, b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 414 ")
    assert raw(server, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n").startswith(b"HTTP/1.0 431 ")
    assert ask(server, "GET", f"/{TOKEN}/")[0] == 200


@pytest.mark.parametrize("part", ["handshake", "headers", "body"])
def test_one_who_dawdles_is_cut_off(start: Callable[..., WebServer], part: str, pem: Path) -> None:
    tls = None
    if part == "handshake":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
    server = start(Limits(connection_s=1.0, idle_s=10.0), tls=tls)
    head = f"POST /{TOKEN}/codes HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    sent = {
        "handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "headers": head.encode(),
        "body": f"{head}Content-Length: 16\r\n\r\n".encode(),
    }[part]
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sent)
        ended = False
        for _ in range(200):  # a byte now and then, never silent for long
            time.sleep(0.1)
            if ended := is_ended(connection):
                break
            connection.sendall(b"a")
    assert ended
    assert time.monotonic() - begun < 10
    assert settles(server, 0)


def test_hundreds_of_connections_are_bounded_and_leave_the_server_well(start: Callable[..., WebServer]) -> None:
    server = start(Limits(connections=40, connection_s=2.0))
    silent, open_at_once = [], set()
    for _ in range(300):
        silent.append(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        open_at_once.add(server.connections)
    assert 1 < max(open_at_once) <= 40
    for connection in silent:
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""  # all of them are ended: most at once, the others when their time is up
        connection.close()
    assert ask(server, "GET", f"/{TOKEN}/")[0] == 200
    assert threading.active_count() < 60


def test_every_answer_has_the_headers_that_keep_a_page_to_itself(server: WebServer) -> None:
    for path in (f"/{TOKEN}/", f"/{TOKEN}/nothing"):
        _, headers, _ = ask(server, "GET", path)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';")
        assert "unsafe-inline" not in policy
        assert "'unsafe-eval'" not in policy
        assert "http" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"  # loopback is a secure context
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert "Server" not in headers


def test_with_a_certificate_it_speaks_https_alone(start: Callable[..., WebServer], pem: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = start(tls=context)
    trusting = ssl.create_default_context(cafile=str(pem))
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=trusting)
    connection.request("GET", f"/{TOKEN}/")
    assert connection.getresponse().read() == b"<!doctype html>"
    assert b"html" not in raw(server, f"GET /{TOKEN}/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=stage2"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (folder / "both.pem").write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return folder / "both.pem"
