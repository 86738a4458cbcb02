"""A standalone Spark for tests: a master and two executors of a core each, on loopback; this
process is the driver."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

_PATIENCE = 90.0
_HERE = "127.0.0.1"
_HOSTS = ("127.0.0.2", "127.0.0.3")  # of the workers: a slow task's second attempt is elsewhere


class SparkCluster:
    """`session`: of this process. Owns master and workers, which end by `close`; executors are
    the workers' children."""

    def __init__(self) -> None:
        import pyspark

        self.folder = Path(tempfile.mkdtemp(prefix="spark-"))
        self._home = Path(pyspark.__file__).parent
        self._environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PENSTOCK_")
        } | {
            "SPARK_HOME": str(self._home),
            "SPARK_LOCAL_IP": _HERE,
            "SPARK_LOCAL_DIRS": str(self.folder / "local"),
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "AWS_ACCESS_KEY_ID": "AKIDTEST",  # of the tests' object store
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.port = _free()
        self.master = f"spark://{_HERE}:{self.port}"
        self._start("master.Master", _HERE, "--port", str(self.port))
        self._await("the master", lambda: _listens(self.port))
        for host in _HOSTS:
            room = ["--cores", "1", "--memory", "1g", "--work-dir", str(self.folder / host)]
            self._start("worker.Worker", host, *room, self.master)
        self.session = self._session()
        self._await("executors", lambda: len(self.executors()) == len(_HOSTS))

    def executors(self) -> list[psutil.Process]:
        """Those that live, oldest first."""
        found = [
            child
            for process in self.processes
            for child in psutil.Process(process.pid).children(recursive=True)
            if _runs(child, "CoarseGrainedExecutorBackend")
        ]
        return sorted(found, key=lambda each: each.create_time())

    def kill_executor(self) -> None:
        """SIGKILL of one; its worker starts another."""
        with suppress(psutil.NoSuchProcess):
            self.executors()[0].send_signal(signal.SIGKILL)

    def close(self) -> None:
        with suppress(Exception):  # a test that timed out may have left the gateway torn
            self.session.stop()
        for process in reversed(self.processes):
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, role: str, host: str, *options: str) -> None:
        with (self.folder / "log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [
                        str(self._home / "bin" / "spark-class"),
                        f"org.apache.spark.deploy.{role}",
                        "--host",
                        host,
                        "--webui-port",
                        "0",
                        *options,
                    ],
                    env=self._environment | {"SPARK_LOCAL_IP": host},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_die_with_me,
                )
            )

    def _session(self) -> Any:
        from penstock.data.spark.session import open_session

        os.environ["PYSPARK_PYTHON"] = sys.executable
        os.environ["SPARK_LOCAL_IP"] = _HERE
        return open_session(
            self.master,
            {
                "spark.driver.host": _HERE,
                "spark.driver.bindAddress": _HERE,
                "spark.driver.memory": "700m",
                "spark.executor.memory": "700m",
                "spark.ui.enabled": "false",
                "spark.default.parallelism": "4",
                "spark.sql.shuffle.partitions": "4",
                "spark.speculation": "true",
                "spark.speculation.interval": "100ms",
                "spark.speculation.quantile": "0.5",
                "spark.speculation.minTaskRuntime": "2s",
            },
        )

    def _await(self, what: str, holds: Any) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not holds():
            said = (self.folder / "log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, f"{what} did not come: {said}"
            time.sleep(0.1)


def _die_with_me() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _runs(process: psutil.Process, name: str) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name() == "java" and any(name in each for each in process.cmdline())
    return False


def _free() -> int:
    with socket.socket() as sock:
        sock.bind((_HERE, 0))
        return int(sock.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((_HERE, port)) == 0
