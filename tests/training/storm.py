"""A run under fire: who is killed and when, and who goes on with it then."""

import random
import signal
import subprocess
import textwrap
import time

from tests.training.conftest import PROJECT, Project

from penstock.base import process
from penstock.jobs import control

ROLES = {
    "rank": ["rank"],
    "all ranks": ["rank"],
    "agent": ["agent"],
    "image": ["image"],
    "sidecar": ["sidecar"],
    "controller": ["controller"],
    "everything": ["controller", "agent", "image", "rank", "sidecar"],
}
UNNOTICED = ("sidecar", "controller")  # by the ranks

# A step takes its time while the storm lasts, so that no strike comes too late; and so does the
# end, so that one may fall into publishing. What is computed is the same as elsewhere.
SLOW = (
    textwrap.dedent(PROJECT)
    .replace("time.sleep(config.pause)", "time.sleep(0 if Path('calm').exists() else config.pause)")
    .replace("pause: float = 0.01", "pause: float = 0.1")
    .replace("checkpoint_every=10", "checkpoint_every=3")
    .replace("import time\n", "import time\nfrom pathlib import Path\n")
    .replace(
        "train.example(2))\n",
        "train.example(2))\n    while not Path('over').exists():\n        time.sleep(0.01)\n",
    )
    .replace("flush=True)\n", "flush=True)\n    while 'stay' in rest:\n        time.sleep(1)\n")
)


class Storm:
    """`struck` tells who was killed so far; `script` is the live one, if there is one.

    lets_go  after the script's death the run is detached, and goes on without the next one's
    """

    def __init__(
        self, project: Project, dice: random.Random, workers: int, lets_go: bool = True
    ) -> None:
        self.project, self.dice, self.lets_go = project, dice, lets_go
        self.struck: list[str] = []
        self.detached = False
        self._workers = str(workers)
        self.script: subprocess.Popen[str] | None = project.start("run", self._workers)

    def strike(self, who: str) -> None:
        """SIGKILL now, or as soon as there is one to kill; whoever has to go on is started."""
        print(f"{time.strftime('%X')} strikes {who}")
        if who == "script":
            self._strike_script()
        else:
            self._strike_run(who)

    def _strike_run(self, who: str) -> None:
        there = lambda: self.project.pids("run", *ROLES[who])  # noqa: E731
        self.project.until(f"a {who}", lambda: there() or self.is_over())
        if self.is_over():
            return
        one = self.dice.choice(there()) if who == "rank" else None
        killed = self.project.kill("run", *ROLES[who], only=one)
        self.project.until(f"the death of {who}", lambda: not any(map(process.start_time, killed)))
        self.struck.append(who)
        if who == "everything":
            self._go_on()

    def is_over(self) -> bool:
        return (run := self.newest()) is not None and run.state == "finished"

    def _go_on(self) -> None:
        """Nobody is left to start anybody."""
        if self.detached:
            with self.project.stores() as stores:
                adopted = self.project.until("the adoption", lambda: control.adopt(stores))
            assert adopted == [self.newest().id]
            return
        out, _ = self.script.communicate(timeout=60)
        assert self.script.returncode == 9 and "was interrupted" in out, out
        self.script = self.project.start("run", self._workers)

    def _strike_script(self) -> None:
        self.script.kill()
        out, _ = self.script.communicate()
        if self.is_over() and self.script.returncode == 0:
            return
        assert self.script.returncode == -signal.SIGKILL, out
        self.script = None
        self.struck.append("script")
        if self.detached:
            return
        self.project.until("the stop", lambda: self.newest().state in ("stopped", "finished"))
        assert self.project.committed("run") == self.newest().step  # saved where it stopped
        self.project.nothing_left()
        self.detached = self.lets_go  # and the next script goes on with something else
        words = ["detach", "stay"] if self.lets_go else []
        self.script = self.project.start("run", self._workers, *words)

    def newest(self):
        return self.project.newest("run")

    def attempts(self) -> int:
        return len(self.project.events("run", "attempt.started"))

    def wait(self, seconds: float) -> None:
        """A random moment, from the seed."""
        moment = time.monotonic() + self.dice.uniform(0, seconds)
        self.project.until("the moment", lambda: time.monotonic() > moment)

    def strike_in_a_step(self, who: str) -> None:
        """At a random moment of a gang that steps: it costs one attempt, or none."""
        self.project.until("a gang that steps", self._steps)
        self.wait(0.5)
        ranks, attempts = self.project.pids("run", "rank"), self.attempts()
        assert self.newest().state == "running" and ranks, "the strike came too late"
        detached = self.detached
        before = self.project.pids("run", *ROLES.get(who, []))
        self.strike(who)
        assert self.struck[-1] == who
        if who not in UNNOTICED and not (who == "script" and detached):
            self.project.until("another attempt", lambda: self.attempts() > attempts)
            assert self.attempts() == attempts + 1
            return
        if who in UNNOTICED:
            pids = lambda: self.project.pids("run", who)  # noqa: E731
            self.project.until(f"another {who}", lambda: pids() and pids() != before)
        step = self.project.committed("run")
        self.project.until("a newer checkpoint", lambda: self.project.committed("run") > step)
        assert (self.project.pids("run", "rank"), self.attempts()) == (ranks, attempts)

    def _steps(self) -> bool:
        if self.newest() is None:
            return False
        seen = {
            kind: max((body["attempt"] for body in self.project.events("run", kind)), default=0)
            for kind in ("attempt.started", "attempt.stepping")
        }
        return 0 < seen["attempt.started"] == seen["attempt.stepping"]
