"""Units are executed at least once and committed exactly once, whoever dies in between."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from penstock.base.errors import BadInput, LeaseHeld, RunFailed, UserCodeFailed
from penstock.base.settings import load_settings
from penstock.jobs import control
from penstock.jobs.map import run_map
from penstock.jobs.source import snapshot
from penstock.jobs.stores import open_stores

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SEED = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(10**6)))
UNITS = {f"unit-{n:02d}": {"n": n} for n in range(24)}

WORK = """
    import os, signal, time
    from pathlib import Path

    def square(payload, context):
        folder = Path(context.shared["folder"])
        with (folder / "executions").open("a") as log:
            log.write(f"{payload['n']} {os.getpid()}\\n")
        time.sleep(context.shared.get("pause", 0))
        while (folder / "pids").exists():  # until so many have been here
            lines = (folder / "executions").read_text().splitlines()
            if len({line.split()[1] for line in lines}) >= int((folder / "pids").read_text()):
                break
            time.sleep(0.02)
        if payload["n"] == context.shared.get("deadly"):
            once = folder / "died"
            if not once.exists() or context.shared.get("always"):
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if payload["n"] == context.shared.get("raising"):
            raise ZeroDivisionError("on purpose")
        digest = context.blobs.put(str(payload["n"] ** 2).encode())
        memory = {"key": f"square of {payload['n']}", "value": {"blob": digest}}
        return {"square": payload["n"] ** 2, "refs": [digest], "memories": [memory]}
    """

SCRIPT = """
    import sys
    from pathlib import Path
    from penstock.base.settings import load_settings
    from penstock.jobs.map import run_map
    from penstock.jobs.stores import open_stores

    def main():
        folder = Path(sys.argv[1])
        units = {f"unit-{n:02d}": {"n": n} for n in range(24)}
        with open_stores(load_settings()) as stores:
            try:
                run_map(
                    stores, name="squares", work="test", function="work:square", units=units,
                    workers=2, shared={"folder": str(folder), "pause": 0.1}, source=sys.argv[2],
                )
                print("done", flush=True)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                sys.stdin.read()

    main()
    """


class Place:
    """A folder with a function and a home.

    nodes  where agents of a cluster have their folders
    """

    def __init__(self, folder, nodes, **settings):
        self.folder, self.nodes = folder, nodes
        (folder / "project").mkdir()
        (folder / "project" / "work.py").write_text(textwrap.dedent(WORK))
        (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
        here = {"home": folder / "home", "blobs": f"file://{folder}/blobs", **settings}
        self.stores = open_stores(load_settings(environment={}, **here))
        self.source = snapshot(folder / "project", self.stores.blobs)

    def run(self, workers=2, units=UNITS, on_done=None, **shared):
        return run_map(
            self.stores,
            name="squares",
            work="test",
            function="work:square",
            units=units,
            workers=workers,
            shared={"folder": str(self.folder), **shared},
            source=self.source,
            on_done=on_done,
        )

    def stop(self, done):
        """Ask the map to stop, once something is done."""
        with self.stores.meta.read() as db:
            run = db.newest_run("squares", "test")
        if run.state == "running":
            control.stop(self.stores, run.id)

    def executions(self):
        """(n, pid) in order."""
        path = self.folder / "executions"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]

    def done(self):
        with self.stores.meta.read() as db:
            run = db.newest_run("squares", "test")
            return {unit.payload["n"] for unit in db.units(run.id, ("done",))} if run else set()

    def agents(self):
        """Pids of agents on other machines."""
        found = []
        for file in self.nodes.glob("agents/*/runtime/processes.json"):
            with contextlib.suppress(OSError, ValueError):
                found += [row["pid"] for row in json.loads(file.read_text())
                          if row["role"] == "agent"]  # fmt: skip
        return found

    def events(self, kind):
        with self.stores.meta.read() as db:
            run = db.newest_run("squares", "test")
            found = db.events(subject=f"run/{run.id}", limit=1000)
        return [event.body for event in found if event.kind == kind]

    def script(self):
        return subprocess.Popen(
            [sys.executable, str(self.folder / "script.py"), str(self.folder), self.source],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def processes(self):
        """Live processes that work in this folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    cwd = (entry / "cwd").readlink()
                    if cwd == self.folder or cwd.is_relative_to(self.nodes / "agents"):
                        found.append(int(entry.name))
        return found


def until(holds, seconds=90):
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"it did not come; seed {SEED}"
        time.sleep(0.01)
    return found


ENGINES = [
    "processes",
    "hosts:2",
    pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.long]),
]


@pytest.fixture(scope="module")
def two_nodes(ray_head):
    ray_head.add()
    ray_head.add()
    yield ray_head
    ray_head.clear()


@pytest.fixture(params=ENGINES)
def place(request, tmp_path, monkeypatch):
    """The same on each engine; Ray's has two nodes."""
    engine, nodes = request.param, tmp_path / "nodes"
    if engine == "ray":
        cluster = request.getfixturevalue("two_nodes")
        engine, nodes = f"ray:{cluster.address}", cluster.folder / "nodes"
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PENSTOCK_NODE_HOME", str(nodes))
    monkeypatch.setenv("PENSTOCK_ENGINE", engine)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENSTOCK_BLOBS", f"file://{tmp_path}/blobs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "project")  # workers=0 has the caller's own path
    sys.modules.pop("work", None)
    made = Place(tmp_path, nodes, engine=engine)
    yield made
    until(lambda: set(made.processes()) <= {os.getpid()})
    until(lambda: not list(nodes.glob("agents/*")))
    made.stores.close()


def squares(result):
    return {key: value["square"] for key, value in result.results.items()}


EXPECTED = {key: payload["n"] ** 2 for key, payload in UNITS.items()}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_unit_is_executed_once_and_its_result_given(place, workers):
    result = place.run(workers=workers)
    assert squares(result) == EXPECTED
    assert sorted(n for n, _ in place.executions()) == sorted(range(24))
    assert result.repeated == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_unit_remembers_is_committed_with_it(place, workers):
    with pytest.raises(UserCodeFailed):
        place.run(workers=workers, raising=9)
    done = place.done()
    with place.stores.meta.read() as db:
        known = {n for n in range(24) if db.recall(f"square of {n}")}
        unit = next(u for u in db.units(db.newest_run("squares", "test").id, ("done",)))
        kept = db.referenced(unit.result["refs"])
    assert known == done
    assert "memories" not in unit.result
    assert kept == set(unit.result["refs"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_replaced_and_only_what_it_had_is_repeated(place, workers):
    result = place.run(workers=workers, deadly=7)
    assert squares(result) == EXPECTED
    executions = place.executions()
    first = {}
    for n, pid in executions:
        first.setdefault(n, pid)
    victim = first[7]
    repeated = [n for n, times in Counter(n for n, _ in executions).items() if times > 1]
    assert 7 in repeated
    assert all(first[n] == victim for n in repeated)
    with place.stores.meta.read() as db:
        events = db.events(subject=f"run/{result.run_id}", limit=1000)
    deaths = [event.body for event in events if event.kind == "rank.died"]
    assert [death["signal"] for death in deaths] == ["SIGKILL"]


def test_a_unit_that_kills_every_worker_ends_the_map(place):
    with pytest.raises(RunFailed, match="SIGKILL"):
        place.run(workers=1, units={"only": {"n": 1}}, deadly=1, always=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_function_raises_names_the_unit_and_keeps_the_others(place, workers):
    with pytest.raises(UserCodeFailed, match=r"on purpose \(unit unit-09\)") as caught:
        place.run(workers=workers, raising=9)
    assert 'raise ZeroDivisionError("on purpose")' in caught.value.facts["traceback"]
    assert 9 not in place.done()
    before = place.done()
    with pytest.raises(UserCodeFailed):  # the same call again: it continues, and fails again
        place.run(workers=workers, raising=9)
    assert place.done() >= before


def test_a_killed_caller_takes_its_workers_along_and_the_next_call_does_the_rest(place):
    script = place.script()
    wanted = random.Random(SEED).randrange(1, 12)
    until(lambda: len(place.done()) >= wanted)
    script.kill()
    script.communicate()
    until(lambda: set(place.processes()) <= {os.getpid()})
    done, before = place.done(), place.executions()
    result = place.run(pause=0.1)
    assert squares(result) == EXPECTED
    again = {n for n, _ in place.executions()[len(before) :]}
    assert again == set(range(24)) - done


def test_ctrl_c_leaves_no_worker_while_the_caller_lives_on(place):
    script = place.script()
    until(lambda: place.done())
    script.send_signal(signal.SIGINT)
    assert script.stdout.readline() == "interrupted\n"
    until(lambda: set(place.processes()) <= {os.getpid(), script.pid})
    with place.stores.meta.read() as db:
        assert db.newest_run("squares", "test").state == "stopped"
    assert squares(place.run(pause=0.1)) == EXPECTED
    script.communicate()


def test_a_map_in_its_callers_process_hears_a_stop_and_goes_on_with_what_is_missing(place):
    few = {key: UNITS[key] for key in sorted(UNITS)[:4]}

    with pytest.raises(RunFailed, match="squares was stopped"):
        place.run(workers=0, units=few, on_done=place.stop, pause=0.26)  # a batch is one unit
    assert place.done() == {0, 1}
    with place.stores.meta.read() as db:
        assert db.newest_run("squares", "test").state == "stopped"
    assert len(place.run(workers=0, units=few, pause=0.26).results) == 4
    assert [n for n, _ in place.executions()] == [0, 1, 2, 3]


def test_workers_that_are_asked_to_stop_end_their_units_and_leave(place):
    """None is killed, so nothing that it had is done again."""

    with pytest.raises(RunFailed, match="squares was stopped"):
        place.run(on_done=place.stop, pause=0.26)
    with place.stores.meta.read() as db:
        run = db.newest_run("squares", "test")
        assert run.state == "stopped" and not db.units(run.id, ("leased",))
        (attempt,) = db.attempts(run.id)
    assert attempt.cause == "stopped on request"
    executed = [n for n, _ in place.executions()]
    assert sorted(executed) == sorted(place.done()) and len(executed) < 24
    assert squares(place.run(pause=0.26)) == EXPECTED
    assert sorted(n for n, _ in place.executions()) == sorted(range(24))


def test_an_equal_call_beside_one_that_goes_on_is_told_so_and_disturbs_nothing(place):
    refused = []

    def call_again(done):
        with pytest.raises(LeaseHeld):
            place.run(workers=0)
        with place.stores.meta.read() as db:
            refused.append(db.newest_run("squares", "test").state)

    assert squares(place.run(workers=0, on_done=call_again)) == EXPECTED
    assert "running" in refused and set(refused) <= {"running", "finished"}
    assert sorted(n for n, _ in place.executions()) == sorted(range(24))


def test_a_map_of_nothing_is_refused(place):
    with pytest.raises(BadInput, match="nothing to do"):
        place.run(units={})


@pytest.mark.parametrize("place", ENGINES[1:], indirect=True)
def test_a_lost_agent_costs_what_its_workers_had_and_they_come_again(place):
    killed = []

    def kill_an_agent(_):
        if not killed and len(place.agents()) == 2 and len(place.done()) >= 4:
            killed.append(place.agents()[0])
            (place.folder / "pids").write_text("3")
            os.kill(killed[0], signal.SIGKILL)

    result = place.run(workers=2, pause=0.2, on_done=kill_an_agent)
    assert killed and squares(result) == EXPECTED
    (lost,) = place.events("node.lost")
    assert len(lost["ranks"]) == 1
    executions = place.executions()
    twice = [n for n, times in Counter(n for n, _ in executions).items() if times > 1]
    assert len(twice) <= 3, "half a second of one worker"
    assert len({pid for _, pid in executions}) == 3


@pytest.mark.parametrize("place", ["hosts:2x1"], indirect=True)
def test_as_many_workers_begin_as_there_is_room_for(place):
    result = place.run(workers=5)
    assert squares(result) == EXPECTED and result.repeated == 0
    assert len({pid for _, pid in place.executions()}) <= 2


@pytest.mark.ray
@pytest.mark.parametrize("place", ["ray"], indirect=True)
def test_a_cluster_of_rays_executes_every_unit_once(place):
    """The shorter sister of all of these on Ray."""
    result = place.run(workers=2)
    assert squares(result) == EXPECTED and result.repeated == 0
