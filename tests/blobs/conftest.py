"""Blob stores to test, and a proxy that breaks what goes through it."""

from __future__ import annotations

import base64
import email.utils
import hmac
import http.client
import itertools
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from penstock.blobs import Behind, Blobs, open_blobs

AZURITE = shutil.which("azurite-blob")  # Microsoft's emulator, from `npm install azurite`
ENGINES = ["memory", "local", "behind", pytest.param("s3", marks=pytest.mark.s3)]
if AZURITE:
    ENGINES.append(pytest.param("azure", marks=pytest.mark.s3))


@pytest.fixture(params=ENGINES)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Every engine in turn; a new engine joins the contract by one line here."""
    if request.param in ("s3", "azure"):
        return open_blobs(request.getfixturevalue(request.param))
    if request.param == "behind":
        behind = Behind(open_blobs(f"file://{tmp_path}/blobs"))
        request.addfinalizer(behind.close)
        return behind.blobs
    return open_blobs({"memory": "memory://", "local": f"file://{tmp_path}/blobs"}[request.param])


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Azure's store on loopback, where its emulator is installed: http://127.0.0.1:PORT."""
    assert AZURITE
    folder = tmp_path_factory.mktemp("azurite")
    command = [
        AZURITE, "--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry",
        "--skipApiVersionCheck",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY)
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield _listening(server, folder / "log")
        finally:
            server.kill()
            server.wait()


def _listening(server: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        if found := re.search(r"listens on (http://127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"azurite does not start: {log.read_text()}")


@pytest.fixture
def azure(azurite: str) -> str:
    """The URL of a new container, made with a signed request, because engines make none."""
    name = f"container-{next(_containers)}"
    place = f"/{ACCOUNT}/{name}"
    head = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    signed = "PUT" + "\n" * 12 + "".join(f"{key}:{value}\n" for key, value in head.items())
    signed += f"/{ACCOUNT}{place}\nrestype:container"
    key = hmac.digest(base64.b64decode(AZURITE_KEY), signed.encode(), "sha256")
    head["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(key).decode()}"
    connection = http.client.HTTPConnection(azurite.removeprefix("http://"), timeout=30)
    connection.request("PUT", f"{place}?restype=container", headers=head)
    assert connection.getresponse().status == 201
    connection.close()
    return f"az://{name}/some/prefix?endpoint={azurite}/{ACCOUNT}&account={ACCOUNT}"


# Published with the emulator; every installation has them.
ACCOUNT = "devstoreaccount1"
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_containers = itertools.count()


@pytest.fixture
def local(tmp_path: Path) -> Blobs:
    return open_blobs(f"file://{tmp_path}/blobs")


@dataclass
class Seen:
    """One request that reached the proxy, and the status of its answer (0: none was sent)."""

    method: str
    path: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in small letters


@dataclass
class Proxy:
    """An HTTP proxy before moto, on a port of its own; every fault happens on real sockets.

    fault  asked for every request; returns what to do with it:
           None           forward it and its answer
           "drop before"  break the connection without forwarding it
           "drop after"   forward it, then break the connection instead of answering
           "cut"          forward it, answer with half of the body
           "flip"         forward it, answer with one bit of the body changed
           "unconditional" forward it without its conditions, as a store that knows none
           "hang"         neither forward nor answer until `release`
           (status, code) answer so, without forwarding it
    """

    upstream: str
    fault: Callable[[Seen], object] = lambda seen: None
    seen: list[Seen] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    host: str = "127.0.0.1"
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server((self.host, self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on; `start` takes the same port again."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def methods(self) -> list[str]:
        return [seen.method for seen in self.seen]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, or delayed acknowledgements cost 40 ms each
    owner: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        seen = Seen(self.command, self.path)
        seen.headers = {name.lower(): value for name, value in self.headers.items()}
        self.owner.seen.append(seen)
        fault = self.owner.fault(seen)
        if fault == "hang":
            self.owner.release.wait(60)
            fault = None
        if fault == "unconditional":
            for name in ("if-none-match", "if-match"):
                del self.headers[name]
        if self.owner._server is None or fault == "drop before":
            return self._break()
        if isinstance(fault, tuple):
            status, code = fault
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
            seen.status = status
            return self._answer(status, {}, b"" if self.command == "HEAD" else text)
        status, headers, data = self._forward(body)
        if fault == "drop after":
            return self._break()
        seen.status = status
        if fault == "flip" and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        return self._answer(status, headers, data, cut=fault == "cut")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(self.owner.upstream.removeprefix("http://"))
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        return answer.status, dict(answer.getheaders()), data

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        length = next((v for k, v in headers.items() if k.lower() == "content-length"), len(data))
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(length if self.command == "HEAD" else len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.wfile.flush()
        if cut:
            self._break()

    def _break(self) -> None:
        self.close_connection = True
        with suppress(OSError):  # a reset, not a polite end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.wfile.flush()
            self.connection.close()


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    proxy = Proxy(moto)
    proxy.start()
    yield proxy
    proxy.release.set()
    proxy.stop()


@pytest.fixture
def through(proxy: Proxy, bucket: str) -> Blobs:
    """A store behind the proxy; it gives up after 20 s, and a request after 5."""
    return open_blobs(f"s3://{bucket}/p?endpoint={proxy.url}&deadline=20&timeout=5")
