"""One training on a cluster under all that happens to machines: what each fault does, who goes on.

The hosts are real as far as one kernel goes: each has its own network, processes, disk and memory.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.blobs.conftest import Proxy
from tests.hosts import Host
from tests.postgres import Server
from tests.ray_hosts import RayHosts
from tests.training.conftest import Project

GOES_ON = (4, 7, 9, 10)  # a script's exit codes after which the same script, run again, goes on


class Gale:
    """`struck` tells what happened so far; `scripts` how many it took.

    cluster  with a head and some nodes, whose hosts are struck
    server   of the project's rows
    proxy    before its bytes
    """

    def __init__(
        self,
        project: Project,
        dice: random.Random,
        cluster: RayHosts,
        server: Server,
        proxy: Proxy,
    ) -> None:
        self.project, self.dice, self._cluster = project, dice, cluster
        self._server, self._proxy = server, proxy
        self.struck: list[str] = []
        self.scripts = 0
        self.script = self._start()
        self.faults: dict[str, Callable[[], None]] = {
            "cut the power of a host": self._cut_power,
            "cut a host off": lambda: self._cut(),
            "cut a host off the controller": lambda: self._cut(cluster.hosts.address),
            "freeze a host": self._freeze,
            "start PostgreSQL again": self._restart_rows,
            "refuse connections to the object store": self._refuse,
            "kill the head": self._kill_head,
            "kill the controller": lambda: self._kill("controller"),
            "kill the keeper": lambda: self._kill("keeper"),
            "kill a rank": self._kill_rank,
        }

    def strike(self, fault: str) -> None:
        print(f"{time.strftime('%X')} step {self.project.committed('run')}: {fault}", flush=True)
        self.faults[fault]()
        self.struck.append(fault)
        self._cluster.restart_what_ended()

    def tend(self, seconds: float = 240) -> None:
        """Start the script again whenever it ended, until a newer checkpoint, or the end."""
        seen = self.project.committed("run")

        def moved() -> bool:
            self._go_on()
            self._cluster.restart_what_ended()
            return self.is_over() or self.project.committed("run") > seen

        try:
            self.project.until("progress", moved, seconds)
        except AssertionError:
            self._tell()
            raise

    def is_over(self) -> bool:
        run = self.project.newest("run")
        return run is not None and run.state == "finished"

    def end(self) -> str:
        """What the script says that comes through."""
        while True:
            out, _ = self.script.communicate(timeout=240)
            if self.script.returncode == 0:
                return out
            self._check(out)
            self.script = self._start()

    def _start(self) -> subprocess.Popen[str]:
        self.scripts += 1
        return self.project.start("run", "2")

    def _go_on(self) -> None:
        with suppress(subprocess.TimeoutExpired):  # one whose pipe is full would stand still
            out, _ = self.script.communicate(timeout=0.01)
            if not self.is_over():
                self._check(out)
                self.script = self._start()

    def _check(self, out: str) -> None:
        code = self.script.returncode
        assert code in GOES_ON or code == -signal.SIGKILL, f"exit code {code}: {out}"

    def _tell(self) -> None:
        """What Ray says, beside what the project told."""
        print("RAY", *(host.said()[-1000:] for host in self._cluster.hosts), sep="\n")

    # -- faults ---------------------------------------------------------------------------------

    def _host(self) -> Host:
        return self.dice.choice([host for host in self._cluster.nodes if host.is_up])

    def _wait(self, most: float) -> None:
        time.sleep(self.dice.uniform(0, most))

    def _cut_power(self) -> None:
        host = self._host()
        host.power_cut()
        self._wait(8)
        self._cluster.start_node(host)

    def _cut(self, *only: str) -> None:
        host = self._host()
        host.cut(*only)
        self._wait(12)
        host.heal()

    def _freeze(self) -> None:
        host = self._host()
        host.freeze()
        self._wait(12)
        host.thaw()

    def _restart_rows(self) -> None:
        self._server.stop(self.dice.choice([signal.SIGINT, signal.SIGQUIT]))
        self._wait(5)
        self._server.start()

    def _refuse(self) -> None:
        self._proxy.stop()
        self._wait(10)
        self._proxy.start()

    def _kill_head(self) -> None:
        self._cluster.kill_head()
        self._wait(10)
        self._cluster.start_head()

    def _kill(self, role: str) -> None:
        for pid in self.project.pids("run", role):
            self.project.signal(pid, signal.SIGKILL)

    def _kill_rank(self) -> None:
        found = [pid for host in self._cluster.nodes for pid in host.pids("rank-")]
        if found:
            self.project.signal(self.dice.choice(found), signal.SIGKILL)


def story(project: Project) -> dict[str, Any]:
    """What came of it: the run's state and weights, versions, and where the alias leads."""
    run = project.newest("run")
    with project.stores() as stores, stores.meta.read() as db:
        versions = db.versions("model", "points")
        alias = db.find_alias("model", "points", "production")
    return {
        "state": run.state if run else None,
        "weights": run.result["weights"] if run else None,
        "versions": len(versions),
        "production": alias.version if alias else None,
    }
