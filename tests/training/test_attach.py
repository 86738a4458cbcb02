"""`ps.attach`: a plain loop in a script or notebook gets the same run, in this process."""

from __future__ import annotations

import signal
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.training.conftest import STEPS, Project, until

from penstock.jobs import control

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

LOOP = """
    import sys
    import time

    import numpy as np
    import torch
    import torch.nn.functional as F
    import penstock as ps

    def make_points(rows: int = 192) -> dict:
        points = np.random.default_rng(7).standard_normal((rows, 6), dtype="float32")
        return {
            "id": [f"point-{number}" for number in range(rows)],
            "point": points,
            "label": (points.sum(1) > 0).astype("int64"),
        }

    def loop(run, pause) -> None:
        net = torch.nn.Sequential(
            torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Dropout(0.3),
            torch.nn.BatchNorm1d(32), torch.nn.Linear(32, 2),
        )
        model = run.distribute(net)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        train = run.data("points:all", batch_size=24, epochs=10)
        run.track(model=model, optimizer=optimizer, train=train)
        for batch in run.steps(train):
            loss = F.cross_entropy(model(batch["point"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log({"train/loss": loss})
            if run.global_step == fail_at:
                raise ValueError("no")
            time.sleep(pause)
        sums = [float(p.double().sum()) for p in net.parameters()]
        print("WEIGHTS", run.finished, run.global_step, sums, flush=True)

    pause, how, *rest = sys.argv[1:]
    fail_at = int(rest[0]) if rest else -1
    if __name__ == "__main__":
        torch.set_num_threads(1)
        ps.prepare("points", make_points, key="id", splits={"all": 1.0})
        run = ps.attach("base", {"lr": 1e-2}, checkpoint_every=10)
        if how == "with":
            with run:
                loop(run, float(pause))
        else:
            loop(run, float(pause))
    """


def weights(out: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in out.splitlines() if line.startswith("WEIGHTS")]


@pytest.fixture
def attached(tmp_path: Path) -> Iterator[Callable[[str], Project]]:
    projects = []

    def make(name: str) -> Project:
        projects.append(Project(tmp_path / name, LOOP))
        return projects[-1]

    yield make
    for project in projects:
        project.close()


@pytest.mark.long
@pytest.mark.faults
def test_a_killed_loop_goes_on_and_ends_with_the_weights_of_one_that_nobody_touched(
    attached: Callable[[str], Project],
) -> None:
    twin, project = attached("twin"), attached("project")
    (expected,) = weights(twin.run("0", "with"))
    script = project.start("0.02", "with")
    until("a checkpoint", lambda: project.committed("base") >= 20)
    script.send_signal(signal.SIGKILL)
    script.communicate()
    assert weights(project.run("0", "without")) == [expected]  # the interpreter's exit ends it
    run = project.newest("base")
    assert run.state == "finished" and run.step == STEPS and run.spec["workers"] == 0
    (again,) = weights(project.run("0", "with"))  # finished: restored, and no step taken
    assert again == expected.replace("False", "True", 1)
    with project.stores() as stores, stores.meta.read() as db:
        assert len(db.attempts(run.id)) == 2


@pytest.mark.long
def test_a_stop_an_error_and_an_early_exit_leave_a_run_that_goes_on(
    attached: Callable[[str], Project],
) -> None:
    project = attached("project")
    out = project.run("0", "with", "13", code=1)
    assert "ValueError: no" in out and project.newest("base").state == "failed"
    assert project.newest("base").error["code"] == "user-code"
    project.run("0", "without", "17", code=1)
    assert project.newest("base").state == "failed"
    script = project.start("0.05", "without")
    until("steps", lambda: project.committed("base") >= 20)
    with project.stores() as stores:
        control.stop(stores, project.newest("base").id)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 1 and "RunStopped" in out
    run = project.newest("base")
    assert run.state == "stopped" and project.committed("base") == run.step
    assert weights(project.run("0", "with"))
    assert project.newest("base").id == run.id


@pytest.mark.long
def test_a_changed_script_or_config_is_another_run_when_the_first_finished(
    attached: Callable[[str], Project],
) -> None:
    project = attached("project")
    project.edit(("epochs=10", "epochs=1"))
    project.run("0", "with")
    first = project.newest("base")
    project.edit(("Dropout(0.3)", "Dropout(0.4)"))
    out = project.run("0", "with")
    assert "changed: train (whole) changed" in out
    assert project.newest("base").id != first.id


NOTEBOOK = """
    import torch, penstock as ps
    run = ps.attach("cells", {"lr": 0.1}, checkpoint_every=2)
    model = run.distribute(torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.track(model=model, optimizer=optimizer)
    for step in run.steps(5):
        run.backward(model(torch.ones(1, 2)).mean())
        run.step(optimizer)
    run.end()
    print("AT", run.global_step, ps.attach("cells", {"lr": 0.1}, checkpoint_every=2).finished)
    """


def test_what_was_typed_into_a_prompt_or_notebook_attaches_too(
    attached: Callable[[str], Project],
) -> None:
    project = attached("project")
    (project.folder / "train.py").write_text(  # as a notebook: `__main__` has no file
        "import sys\ndel sys.modules['__main__'].__file__\n" + textwrap.dedent(NOTEBOOK)
    )
    assert "AT 5 True" in project.run()
    run = project.newest("cells")
    assert run.state == "finished" and run.source == ""


@pytest.mark.long
@pytest.mark.faults
def test_ranks_of_torchrun_attach_together(attached: Callable[[str], Project]) -> None:
    from tests.training.test_launched import TORCHRUN, ranks

    twin, project = attached("twin"), attached("project")
    expected = weights(twin.run("0", "with", under=TORCHRUN))
    assert len(expected) == 2 and expected[0] == expected[1]
    script = project.start("0.02", "with", under=TORCHRUN)
    until("a checkpoint", lambda: project.committed("base") >= 20)
    project.signal(ranks(project, "base")["1"], signal.SIGKILL)
    out, _ = script.communicate(timeout=100)
    assert script.returncode == 0, out
    assert weights(out) == expected
