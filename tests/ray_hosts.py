"""A Ray cluster on hosts of the tests' own: a head that has no room for ranks, and nodes."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.hosts import Host, Hosts

_PATIENCE = 120.0  # seconds
_PORT, _CLIENTS = 6379, 10001
_DRIVER = """
import json, sys, ray, ray.util
ray.init(address=sys.argv[1], namespace="penstock", logging_level="error", log_to_driver=False)
for line in sys.stdin:
    print("SAYS" + json.dumps(eval(line), default=str), flush=True)
"""


class RayHosts:
    """Owns the hosts and what runs on them. Ends by `close`.

    redis   (address of this machine) -> "HOST:PORT" where the head keeps what outlives it; None: it
            forgets all
    python  the interpreter that has Ray; None: this one
    shared  folders that all hosts see
    """

    def __init__(
        self,
        redis: Callable[[str], str] | None = None,
        python: str | None = None,
        shared: Sequence[Path] = (),
    ) -> None:
        self.hosts = Hosts(shared=shared)
        self._python = python or sys.executable
        self.token = secrets.token_hex(32)
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "5",
            "AWS_ACCESS_KEY_ID": "AKIDTEST",  # of the tests' object store, for ranks on hosts
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        }
        self._kept = redis(self.hosts.services) if redis is not None else None
        self._driver: subprocess.Popen[str] | None = None
        self._begun: dict[str, int] = {}  # name of a host -> the room that its node has
        self.head = self.hosts.add()
        self.start_head()

    @property
    def engine(self) -> str:
        return f"ray://{self.head.address}:{_CLIENTS}"

    @property
    def address(self) -> str:
        return f"{self.head.address}:{_PORT}"

    @property
    def nodes(self) -> list[Host]:
        return list(self.hosts)[1:]

    # -- beginnings and ends --------------------------------------------------------------------

    def start_head(self) -> None:
        """Also again, after it was cut off or killed."""
        self._forget_driver()
        env = dict(self.environment)
        if self._kept is not None:
            env["RAY_REDIS_ADDRESS"] = self._kept
        ports = ["--port", str(_PORT), "--ray-client-server-port", str(_CLIENTS)]
        self._start(self.head, env, ["--head", *ports, "--include-dashboard=false"], 0)
        self.until("a head", lambda: _listens(self.head.address, _PORT))
        self.until("its door for clients", lambda: _listens(self.head.address, _CLIENTS))

    def kill_head(self) -> None:
        """All of Ray on it, at one moment; the host stays."""
        self._forget_driver()
        self.head.kill_all()
        self.head.run("rm", "-rf", "/tmp/ray")

    def add(self, cpus: int = 1) -> Host:
        """A host with a node, which is there when this returns."""
        host = self.hosts.add()
        self.start_node(host, cpus)
        return host

    def start_node(self, host: Host, cpus: int = 1) -> None:
        """Also again, on a host that lost its power or its node."""
        if not host.is_up:
            host.start()
        before = set(self._ids(host))  # Ray may not know yet that they ended
        self._start(host, self.environment, ["--address", self.address], cpus)
        self.until("a node", lambda: bool(set(self._ids(host)) - before))

    def restart_what_ended(self) -> None:
        """As a machine's service manager does: a node that Ray gave up ends by itself."""
        for host in self.nodes:
            if host.is_up and not host.pids("raylet"):
                host.run("rm", "-rf", "/tmp/ray")
                self.start_node(host, self._begun[host.name])

    def is_there(self, host: Host) -> bool:
        """Whether Ray counts its node among those that live."""
        return bool(self._ids(host))

    def _ids(self, host: Host) -> list[str]:
        rows = [row for row in self.rows() if row["NodeManagerAddress"] == host.address]
        return [row["NodeID"] for row in rows if row["Alive"]]

    def rows(self) -> list[dict[str, Any]]:
        return list(self.ask("ray.nodes()"))

    def close(self) -> None:
        self._forget_driver()
        self.hosts.close()

    def _start(self, host: Host, env: dict[str, str], options: list[str], cpus: int) -> None:
        self._begun[host.name] = cpus
        common = ["--num-cpus", str(cpus), "--num-gpus", "0", "--disable-usage-stats", "--block"]
        common += ["--node-ip-address", host.address, "--object-store-memory", "80000000"]
        host.begin(self._python, "-m", "ray.scripts.scripts", "start", *options, *common, env=env)

    # -- asking ---------------------------------------------------------------------------------

    def ask(self, expression: str) -> Any:
        """What Ray says, by a driver of its own on the head: this process never joins a cluster."""
        said = self._asked(expression)
        if said is None:  # it ended with the head that it knew
            self._forget_driver()
            said = self._asked(expression)
        assert said is not None, f"the driver died: {self.head.said()}"
        return json.loads(said)

    def _asked(self, expression: str) -> str | None:
        if self._driver is None:
            self._driver = self._new_driver()
        assert self._driver.stdin is not None and self._driver.stdout is not None
        with suppress(BrokenPipeError):
            self._driver.stdin.write(expression + "\n")
            self._driver.stdin.flush()
        for line in self._driver.stdout:
            if line.startswith("SAYS"):
                return line.removeprefix("SAYS")
        return None

    def _new_driver(self) -> subprocess.Popen[str]:
        return self.head.talk(self._python, "-c", _DRIVER, self.address, env=self.environment)

    def _forget_driver(self) -> None:
        if self._driver is not None:
            assert self._driver.stdin is not None and self._driver.stdout is not None
            self._driver.kill()
            self._driver.wait()
            self._driver.stdin.detach()
            self._driver.stdout.close()
            self._driver = None

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not holds():
            said = "".join(host.said() for host in self.hosts)
            assert time.monotonic() < deadline, f"{what} did not come: {said[-4000:]}"
            time.sleep(0.1)

    def nothing_is_left(self, seconds: float = 90) -> None:
        """Of no run, on any host, nor with Ray. A host that was cut off takes a minute to see that
        nobody wants what it has."""
        deadline = time.monotonic() + seconds
        while found := self._left():
            assert time.monotonic() < deadline, "\n".join(found)
            time.sleep(0.5)

    def _left(self) -> list[str]:
        actors = [f"actor {name}" for name in self.ask("ray.util.list_named_actors()")]
        groups = self.ask("list(ray.util.placement_group_table().values())")
        held = [f"group {row['name']}" for row in groups if row["state"] != "REMOVED"]
        return actors + held + [line for host in self.nodes if host.is_up for line in host.left()]


def _listens(host: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex((host, port)) == 0
