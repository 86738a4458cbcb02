"""A small real training project in a folder of its own, run as a script, and its twin.

Most of a run's time here is its starts: torch is imported in the image, and in the script only
where it trains itself (workers=0); no package gets an ONNX file, which takes longer to make than
the training.
"""

import contextlib
import fcntl
import functools
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.base.settings import load_settings
from penstock.jobs import control
from penstock.jobs.stores import Stores, open_stores
from penstock.records import Run

SEED = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(10**6)))

PROJECT = """
    import sys
    import time
    from dataclasses import dataclass

    import numpy as np
    import penstock as ps

    sys.modules["onnx"] = None  # as if it were not installed

    @dataclass
    class Config:
        pause: float = 0.01
        epochs: int = 10

    def make_points(rows: int = 192) -> dict:
        points = np.random.default_rng(7).standard_normal((rows, 6), dtype="float32")
        return {
            "id": [f"point-{number}" for number in range(rows)],
            "point": points,
            "label": (points.sum(1) > 0).astype("int64"),
        }

    def fit(run: "ps.Run", config: Config) -> None:
        import torch
        import torch.nn.functional as F

        net = torch.nn.Sequential(
            torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Dropout(0.3),
            torch.nn.BatchNorm1d(32), torch.nn.Linear(32, 2),
        )
        model = run.distribute(net)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        train = run.data("points:all", batch_size=24, epochs=config.epochs)
        run.track(model=model, optimizer=optimizer, train=train)
        for batch in run.steps(train):
            loss = F.cross_entropy(model(batch["point"]), batch["label"])
            run.backward(loss)
            run.step(optimizer, clip=1.0)
            run.log({"train/loss": loss})
            time.sleep(config.pause)
        run.publish("points", model, example=train.example(2))

    def main() -> None:
        ps.prepare("points", make_points, key="id", splits={"all": 1.0})
        name, workers, *rest = sys.argv[1:]
        trained = ps.train(
            fit, Config(), name=name, workers=int(workers), checkpoint_every=10,
            detach="detach" in rest, fresh="fresh" in rest, seed=3, threads=1,
        )
        print("RUN", trained.run.id, flush=True)

    if __name__ == "__main__":
        ps.main(main)
    """
STEPS = 80


def until(what: str, holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Poll until `holds` gives something true, and give that back."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what} did not come; seed {SEED}"
        time.sleep(0.01)
    return found


class Project:
    """A folder with train.py and a home."""

    def __init__(self, folder: Path, source: str = PROJECT, **settings: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.py").write_text(textwrap.dedent(source))
        self.home = folder / ".penstock"
        self.settings = load_settings(folder=folder, environment={}, home=self.home, **settings)
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PENSTOCK_")
        } | {"PENSTOCK_HOME": str(self.home)}
        self.environment |= {f"PENSTOCK_{k.upper()}": str(v) for k, v in settings.items()}
        self._opened: Stores | None = None
        self._scripts: list[subprocess.Popen[str]] = []

    def until(self, what: str, holds: Callable[[], Any], seconds: float = 60.0) -> Any:
        """As the function of that name; where it does not come, what there is to know is told."""
        try:
            return until(what, holds, seconds)
        except AssertionError:
            self.tell()
            raise

    def tell(self) -> None:
        """Print the newest events and the ends of the logs of the newest run."""
        with self.stores() as stores, stores.meta.read() as db:
            for run in db.runs(limit=1):
                print("RUN", run)
                for event in db.events(subject=f"run/{run.id}", limit=100_000)[-25:]:
                    print("EVENT", event)
                for log in sorted((self.home / "runs" / run.id / "logs").glob("*.log")):
                    print("LOG", log.name, log.read_text(errors="replace")[-1500:])

    def edit(self, *pairs: tuple[str, str]) -> None:
        """Replace texts in train.py."""
        path = self.folder / "train.py"
        text = path.read_text()
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        path.write_text(text)

    def start(self, *arguments: str, under: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        script = subprocess.Popen(
            [*under, sys.executable, "train.py", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._scripts.append(script)
        return script

    def run(self, *arguments: str, code: int = 0, under: tuple[str, ...] = ()) -> str:
        script = self.start(*arguments, under=under)
        out, _ = script.communicate(timeout=120)
        assert script.returncode == code, out
        return out

    @contextlib.contextmanager
    def stores(self) -> Iterator[Stores]:
        """Opened once: whoever polls opens nothing anew."""
        if self._opened is None:
            self._opened = open_stores(self.settings)
        yield self._opened

    def newest(self, name: str) -> Run | None:
        with self.stores() as stores, stores.meta.read() as db:
            return db.newest_run(name, "train")

    def committed(self, name: str) -> int:
        """The newest saved step; -1 while there is no run."""
        with self.stores() as stores, stores.meta.read() as db:
            run = db.newest_run(name, "train")
            if run is None:
                return -1
            return max((row.step for row in db.checkpoints(run.id)), default=0)

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        with self.stores() as stores, stores.meta.read() as db:
            run = db.newest_run(name, "train")
            assert run is not None
            found = db.events(subject=f"run/{run.id}", limit=10_000)
        return [event.body for event in found if event.kind == kind]

    def log(self, name: str, process: str) -> str:
        """What a process of the newest run said."""
        run = self.newest(name)
        assert run is not None
        return (self.home / "runs" / run.id / "logs" / f"{process}.log").read_text()

    def pids(self, name: str, *roles: str) -> list[int]:
        """Live processes of the newest run in these roles."""
        with self.stores() as stores:
            with stores.meta.read() as db:
                run = db.newest_run(name, "train")
            rows = control.pids(stores, run.id) if run else []
        return [row["pid"] for row in rows if row["role"] in roles]

    def kill(self, name: str, *roles: str, only: int | None = None) -> list[int]:
        """SIGKILL for the run's processes in these roles, or the only one; waits until there are
        some."""
        found = [only] if only else until(f"a {roles}", lambda: self.pids(name, *roles))
        for number in (signal.SIGSTOP, signal.SIGKILL):  # at one moment: none may help another
            for pid in found:
                self.signal(pid, number)
        return found

    @staticmethod
    def signal(pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def leftovers(self) -> list[str]:
        """Command lines of live processes that belong to this home."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    place = (entry / "cwd").readlink()
                    if str(self.folder) in words or place == self.folder:
                        found.append(f"{entry.name} {words}")
        return found

    def nothing_left(self) -> None:
        until("the end of all processes", lambda: not self.leftovers(), 20)

    def close(self) -> None:
        """Nothing is left, neither a process nor an open store, also when the test failed."""
        for script in self._scripts:
            if script.poll() is None:
                script.kill()
                script.communicate()
        self.nothing_left()
        if self._opened is not None:
            self._opened.close()
            self._opened = None


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """workers -> digest of the weights of a run that nobody touched."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers: whoever is first makes the twin
    return functools.cache(functools.partial(twin, shared))


def twin(shared: Path, workers: int) -> str:
    with (shared / f"twin-{workers}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        project = Project(shared / f"twin-{workers}", PROJECT.replace("0.01", "0.0", 1))
        project.run("twin", str(workers))
        run = project.newest("twin")
        project.close()
    assert run is not None and run.state == "finished" and run.step == STEPS
    return str(run.result["weights"])


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    yield made
    made.close()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Makes a project with other settings."""
    projects: list[Project] = []

    def make(**settings: Any) -> Project:
        projects.append(Project(tmp_path / f"project-{len(projects)}", **settings))
        return projects[-1]

    yield make
    for project in projects:
        project.close()


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Random points of time, repeatable with PENSTOCK_CHAOS_SEED."""
    print(f"PENSTOCK_CHAOS_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")
