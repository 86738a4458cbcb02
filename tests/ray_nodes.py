"""A Ray cluster for tests: real nodes, each a process tree that can be cut off at once."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

_PATIENCE = 120.0
_HIDE = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
_DRIVER = """
import json, sys, ray, ray.util
ray.init(address=sys.argv[1], namespace="penstock", logging_level="error", log_to_driver=False)
for line in sys.stdin:
    print("SAYS" + json.dumps(eval(line), default=str), flush=True)
"""


class Node:
    """`ray start --block`, and all that it started."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        log: Path,
        around: tuple[str, ...] = (),
    ) -> None:
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *around,
                    sys.executable,
                    "-m",
                    "ray.scripts.scripts",
                    "start",
                    *command,
                    "--block",
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def stop(self) -> None:
        """As `ray stop`: it takes its leave, so that Ray knows at once."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.cut()

    def cut(self) -> None:
        """As if its power went: everything on it at one moment."""
        found = self._tree()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            self._signal(found, number)
        self.process.wait()

    def freeze(self) -> None:
        """As if the machine stood still: nothing on it answers, and nothing is closed."""
        self._signal(self._tree(), signal.SIGSTOP)

    def _tree(self) -> list[int]:
        found = [self.process.pid]
        with suppress(psutil.NoSuchProcess):
            tree = psutil.Process(self.process.pid).children(recursive=True)
            found += [each.pid for each in tree]
        return found

    @staticmethod
    def _signal(pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class Cluster:
    """A head that has no room for ranks, and the nodes that are added. Ends by `close`.

    autoscales  so many nodes of one CPU come by themselves when somebody waits for them; 0: none
    jobs        it takes scripts that are submitted to it (needs ray[default])
    """

    def __init__(self, autoscales: int = 0, jobs: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # socket paths are short
        self.token = secrets.token_hex(32)
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PENSTOCK_")
        } | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_worker_niceness": "0",  # the usual 15 would starve them on a busy machine
            "PENSTOCK_NODE_HOME": str(self.folder / "nodes"),
            "AWS_ACCESS_KEY_ID": "AKIDTEST",  # of the tests' object store, for ranks on nodes
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        }
        self.nodes: list[Node] = []
        self._driver: subprocess.Popen[str] | None = None
        self.port, self.client_port, self.jobs_port = _free(), _free(), _free()
        self.host = _address()
        ports = ["--port", str(self.port), "--ray-client-server-port", str(self.client_port)]
        where = ["--temp-dir", str(self.folder / "t"), f"--include-dashboard={str(jobs).lower()}"]
        where += ["--dashboard-port", str(self.jobs_port)] if jobs else []
        if autoscales:
            self.environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
            where.append(f"--autoscaling-config={self._autoscaler(autoscales)}")
        self.head = self._start(["--head", *ports, *where, "--num-cpus", "0"])
        self._await("a head", lambda: _listens(self.host, self.port))
        if jobs:
            self._await("its door for jobs", lambda: _listens("127.0.0.1", self.jobs_port))

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def add(
        self, cpus: int = 1, *options: str, hidden: Path | None = None, **environment: str
    ) -> Node:
        """A node, which is there when this returns.

        options      more of `ray start`
        hidden       a folder that is empty there, as if it were on a disk of this machine; needs
                     root
        environment  what differs there
        """
        before = self.count()
        command = ["--address", self.address, "--num-cpus", str(cpus), *options]
        under = ("unshare", "--mount", "sh", "-c", _HIDE, str(hidden)) if hidden else ()
        node = self._start(command, environment, under)
        self.nodes.append(node)
        self._await("a node", lambda: self.count() > before)
        return node

    def count(self) -> int:
        """Live nodes that have room for ranks."""
        return sum(row["Alive"] and row["Resources"].get("CPU", 0) > 0 for row in self.rows())

    def clear(self) -> None:
        """End all nodes, and wait until Ray knows of those whose power was cut."""
        while self.nodes:
            self.nodes.pop().stop()
        self._await("the end of all nodes", lambda: self.count() == 0)

    def rows(self) -> list[dict[str, Any]]:
        return list(self.ask("ray.nodes()"))

    def drain(self, node: str, seconds: int = 60) -> None:
        """Announce, as a cloud would, that a node is taken away."""
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", *reason]
        command += ["--address", self.address, "--node-id", node]
        command += ["--deadline-remaining-seconds", str(seconds)]
        found = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr

    def ask(self, expression: str) -> Any:
        """What Ray says, by a driver of its own that stays: this process never joins a cluster."""
        if self._driver is None:
            self._driver = subprocess.Popen(
                [sys.executable, "-c", _DRIVER, self.address],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        assert self._driver.stdin is not None and self._driver.stdout is not None
        self._driver.stdin.write(expression + "\n")
        self._driver.stdin.flush()
        for line in self._driver.stdout:
            if line.startswith("SAYS"):
                return json.loads(line.removeprefix("SAYS"))
        raise AssertionError("the driver died")

    def close(self) -> None:
        if self._driver is not None:
            self._driver.kill()
            self._driver.wait()
        for node in [*self.nodes, self.head]:
            node.cut()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _autoscaler(self, most: int) -> Path:
        """The configuration of Ray's own autoscaler whose nodes are processes of this machine."""
        same = {"use_node_id_as_ip": True, "disable_node_updaters": True}
        provider = {"type": "fake_multinode", "disable_launch_config_check": True, **same}
        room = {"CPU": 1, "object_store_memory": 80_000_000}
        small = {"resources": room, "node_config": {}, "min_workers": 0, "max_workers": most}
        head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
        config = {
            "cluster_name": "tests",
            "max_workers": most,
            "provider": {**provider, "gcs_address": self.address},
            "available_node_types": {"ray.head.default": head, "small": small},
            "head_node_type": "ray.head.default",
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": 0.1,
            **{key: {} for key in ("auth", "docker", "file_mounts")},
            **{f"{who}setup_commands": [] for who in ("", "head_", "worker_")},
            **{f"{who}_start_ray_commands": [] for who in ("head", "worker")},
            **{key: [] for key in ("initialization_commands", "cluster_synced_files")},
        }
        path = self.folder / "autoscaler.yaml"
        path.write_text(json.dumps(config))  # which is YAML too
        return path

    def _start(
        self,
        options: list[str],
        environment: dict[str, str] | None = None,
        under: tuple[str, ...] = (),
    ) -> Node:
        common = ["--num-gpus", "0", "--object-store-memory", "80000000", "--disable-usage-stats"]
        around = self.environment | (environment or {})
        return Node([*options, *common], around, self.folder / "nodes.log", under)

    def _await(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not holds():
            said = (self.folder / "nodes.log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, f"{what} did not come: {said}"
            time.sleep(0.1)


def _free() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def _address() -> str:
    """By which Ray's nodes know this machine."""
    import ray._private.services

    return str(ray._private.services.get_node_ip_address())


def _listens(host: str, port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((host, port)) == 0
