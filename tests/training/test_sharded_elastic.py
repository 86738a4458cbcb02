"""Models in shards (FSDP2) that are forked, and whose number of ranks changes on the way."""

from __future__ import annotations

import json
import signal

import pytest
from tests.training.conftest import STEPS, Project
from tests.training.test_forks import command, finished
from tests.training.test_sharded import PROJECT, told

from penstock.jobs import control

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(300)]

ROWS, BATCH, PARTS = 192, 24, 4


@pytest.fixture
def sharded(tmp_path):
    project = Project(tmp_path / "project", PROJECT)
    project.edit(("if run.global_step == 4 and run.rank == 0:", "if False:"))
    yield project
    project.close()


def with_rate(project: Project) -> Project:
    project.edit(
        ("epochs: int = 10", "epochs: int = 10\n    lr: float = 1e-2"),
        ("lr=1e-2)", "lr=config.lr)"),
        (
            "tell(ends=run.global_step,",
            'tell(lr=optimizer.param_groups[0]["lr"], ends=run.global_step,',
        ),
    )
    return project


@pytest.mark.long
def test_a_fork_of_a_sharded_run_begins_with_its_weights_and_goes_on_at_another_rate(
    sharded,
) -> None:
    """At 2 ranks. The fork is killed on its way, and ends with the weights of one that was not."""
    with_rate(sharded)
    sharded.run("base", "2", "0")
    begun = told(sharded, "begins")[50]
    command(sharded, "runs", "fork", "base@50", "lr=1e-3", "--name", "calm")
    calm = finished(sharded, "calm")
    assert told(sharded, "begins")[50] == begun * 2
    [resumed] = sharded.events("calm", "attempt.resumed")
    assert resumed["changed"] == ["optimizer.lr: 0.01 -> 0.001"]
    command(sharded, "runs", "fork", "base@50", "lr=1e-3", "pause=0.1", "--name", "hurt")
    sharded.until("step 60", lambda: sharded.committed("hurt") >= 60)
    sharded.signal(sharded.pids("hurt", "rank")[1], signal.SIGKILL)
    hurt = finished(sharded, "hurt")
    assert len(sharded.events("hurt", "attempt.started")) == 2
    assert hurt.result["weights"] == calm.result["weights"]
    assert hurt.result["weights"] != sharded.newest("base").result["weights"]
    lines = (sharded.folder / "told").read_text().splitlines()
    assert [facts["lr"] for facts in map(json.loads, lines) if "lr" in facts] == [1e-2, 1e-3, 1e-3]


def elastic(project: Project, *more: tuple[str, str]) -> Project:
    """Each rank notes the rows of each part; V micro-batches at any number of ranks."""
    project.edit(
        ("workers=int(workers)", "workers=eval(workers)"),
        ("run.steps(train, compare_every=5)", f"run.steps(train, micro_batches={PARTS})"),
        ("if run.global_step in (0, 30, 50):", "if run.global_step != seen:"),
        ("tell(begins=", "seen = run.global_step\n            tell(begins="),
        ("    for batch in", "    seen = None\n    for batch in"),
        (
            "loss = F.cross_entropy(",
            'note = {"step": run.global_step + 1, "ranks": run.world_size,\n'
            '                "attempt": run._link.attempt, "rows": batch["id"]}\n'
            '        with Path(f"rows-{run.rank}").open("a") as file:\n'
            "            print(json.dumps(note), file=file)\n"
            "        loss = F.cross_entropy(",
        ),
        *more,
    )
    return project


def rows_of(project: Project) -> dict[int, tuple[int, list[str]]]:
    """step -> (ranks, rows) of the newest attempt that took it."""
    found: dict[int, dict[int, tuple[int, list[str]]]] = {}
    for path in project.folder.glob("rows-*"):
        for note in map(json.loads, path.read_text().splitlines()):
            attempts = found.setdefault(note["step"], {})
            attempts.setdefault(note["attempt"], (note["ranks"], []))[1].extend(note["rows"])
    return {step: attempts[max(attempts)] for step, attempts in found.items()}


def every_row_once_an_epoch(project: Project) -> list[int]:
    """Asserts it; the numbers of ranks that took the steps, in their order."""
    found = rows_of(project)
    assert sorted(found) == list(range(1, STEPS + 1))
    assert all(len(rows) == BATCH for _, rows in found.values())
    per_epoch = ROWS // BATCH
    for first in range(1, STEPS + 1, per_epoch):
        taken = [row for step in range(first, first + per_epoch) for row in found[step][1]]
        assert len(set(taken)) == ROWS
    return [found[step][0] for step in sorted(found)]


@pytest.mark.long
def test_a_sharded_run_goes_on_in_a_smaller_gang_when_a_rank_always_dies(sharded) -> None:
    kills = "run.rank == 1 and run.global_step == 23 and os.kill(os.getpid(), signal.SIGKILL)"
    elastic(
        sharded,
        ("time.sleep(config.pause)", f"import os, signal; {kills}; time.sleep(config.pause)"),
    )
    out = sharded.run("run", "(1, 2)", "0")
    assert "1 rank instead of 2 after 2 failures" in out
    run = sharded.newest("run")
    assert run is not None and (run.state, run.step) == ("finished", STEPS)
    assert [b["world_size"] for b in sharded.events("run", "attempt.started")] == [2, 2, 1]
    begun = told(sharded, "begins")[20]
    assert len(begun) >= 2, "the first gang's, the smaller one's, and the second's without memory"
    assert len(set(begun)) == 1, "loaded at another sharding"
    assert every_row_once_an_epoch(sharded) == [2] * 20 + [1] * 60


@pytest.mark.long
def test_a_sharded_run_shrinks_and_grows_on_request_and_takes_each_row_once(sharded) -> None:
    elastic(sharded)
    script = sharded.start("run", "(1, 2)", "0.05")
    for size, step in ((1, 10), (2, 40)):
        sharded.until(f"step {step}", lambda at=step: sharded.committed("run") >= at, 90)
        run = sharded.newest("run")
        assert run is not None
        with sharded.stores() as stores:
            control.resize(stores, run.id, size)
        sharded.until(
            "the other size", lambda to=size: sharded.newest("run").spec["world_size"] == to
        )
    out, _ = script.communicate(timeout=180)
    assert script.returncode == 0, out
    assert [b["world_size"] for b in sharded.events("run", "attempt.started")] == [2, 1, 2]
    resumed = [body["step"] for body in sharded.events("run", "attempt.resumed")]
    ranks = every_row_once_an_epoch(sharded)
    first, second = resumed
    assert ranks == [2] * first + [1] * (second - first) + [2] * (STEPS - second)
    begun = told(sharded, "begins")
    assert all(len(set(begun[step])) == 1 for step in resumed), "loaded at another sharding"
