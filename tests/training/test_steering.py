"""A run steered from elsewhere: stopped, resumed, followed, listed; and what cannot be kept."""

import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from penstock.jobs import control, logs
from penstock.records import Run
from penstock.training.follow import stop_early

pytestmark = [pytest.mark.torch, pytest.mark.timeout(120)]

HELD = """
import pathlib, time
while pathlib.Path(__file__).with_name("imports").exists():
    time.sleep(0.01)
"""


def test_a_detached_run_is_followed_stopped_and_resumed_to_the_same_weights(project, undisturbed):
    project.edit(
        ("        time.sleep(", "        print('at', run.global_step)\n        time.sleep("),
    )
    project.run("run", "2", "detach")
    run = project.newest("run")
    with project.stores() as stores:
        lines = []

        def read():
            over = lambda: project.newest("run").state == "finished"  # noqa: E731
            lines.extend(logs.follow(stores.layout, run.id, rank=1, ended=over))

        reader = threading.Thread(target=read)
        reader.start()
        project.until("step 20", lambda: project.committed("run") >= 20)
        roles = [row["role"] for row in control.pids(stores, run.id)]
        assert sorted(set(roles)) == ["agent", "controller", "image", "rank", "sidecar"]
        assert roles[0] == "controller" and roles.count("rank") == 2
        control.stop(stores, run.id)
        project.until("the stop", lambda: project.newest("run").state == "stopped")
        project.nothing_left()
        stopped_at = project.newest("run").step
        assert project.committed("run") == stopped_at
        control.resume(stores, run.id)
        project.until("the end", lambda: project.newest("run").state == "finished")
        reader.join(20)
        assert not stores.layout.runtime(f"run/{run.id}", create=False).exists()
    assert [line for line in lines if line.startswith("at ")] == [f"at {n}" for n in range(80)]
    assert project.newest("run").result["weights"] == undisturbed(2)


def test_ctrl_c_right_after_the_call_ends_script_and_run(project):
    script = project.start("run", "2")
    project.until("the run", lambda: project.newest("run"))
    project.signal(script.pid, signal.SIGINT)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 10, out
    assert 'run "run" was stopped at step' in out and "Traceback" not in out
    run = project.newest("run")
    assert run.state == "stopped" and run.step == project.committed("run") < 80
    with project.stores() as stores:
        assert not stores.layout.runtime(f"run/{run.id}", create=False).exists()


def test_a_stop_while_the_image_imports_ends_the_run_before_a_rank_is_there(project, tmp_path):
    """The order to start waits in the agent, or is on its way there: nothing may come of it."""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "held.py").write_text(HELD)
    project.environment |= {"PYTHONPATH": str(libraries)}
    project.edit(("seed=3,", 'seed=3, preload=["held"],'))
    project.run("run", "2", "detach")
    run = project.newest("run")
    with project.stores() as stores, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(libraries))
        control.stop(stores, run.id)
        project.until("the stop", lambda: project.newest("run").state == "stopped")
        project.nothing_left()
        step = project.newest("run").step
        held = libraries / "imports"
        held.touch()
        control.resume(stores, run.id)  # no script's nursery: its image begins to import now
        project.until("an image", lambda: project.pids("run", "image"))
        control.stop(stores, run.id)
        project.until("the second stop", lambda: project.newest("run").state == "stopped")
    assert project.newest("run").step == project.committed("run") == step
    project.nothing_left()
    held.unlink()
    assert "RUN" in project.run("run", "2")


def test_ctrl_c_after_the_end_is_no_stop(project):
    run = Run("run-1", "run", "train", "finished", {"workers": 1})
    with project.stores() as stores:
        with stores.meta.write() as tx:
            tx.add_run(run)
        assert isinstance(stop_early(stores, run), KeyboardInterrupt)
    assert project.newest("run").state == "finished"


def read_until(script, words):
    """What the script says until a line with these words."""
    lines = []
    for line in script.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def test_a_second_ctrl_c_kills_a_run_that_cannot_stop(project):
    project.edit(
        ("        loss =", "        while run.global_step == 10: time.sleep(0.01)\n        loss ="),
    )
    script = project.start("run", "1")
    project.until("step 10", lambda: project.committed("run") >= 10)
    project.signal(script.pid, signal.SIGINT)
    read_until(script, "Ctrl-C again kills")
    project.signal(script.pid, signal.SIGINT)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 10 and "killing" in out, out
    assert [body["cause"] for body in project.events("run", "attempt.ended")] == [
        "killed on request"
    ]
    assert project.newest("run").state == "stopped" and project.committed("run") == 10


@pytest.mark.long
def test_an_interrupted_detached_run_is_adopted_by_penstock_up_and_followed_by_its_script(
    project,
):
    project.edit(
        ("import sys", "import pathlib, sys"),
        (
            "        loss =",
            "        while run.global_step == 40 and not pathlib.Path('go').exists():\n"
            "            time.sleep(0.01)\n"
            "        loss =",
        ),
    )
    project.run("run", "1", "detach")
    project.until("step 20", lambda: project.committed("run") >= 20)
    dead = project.kill("run", "controller", "agent", "image", "rank", "sidecar")
    up = subprocess.Popen(
        [sys.executable, "-m", "penstock.cli.main", "up", "--port", "0"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    project.until("its adoption", lambda: set(project.pids("run", "rank")) - set(dead))
    project.signal(up.pid, signal.SIGINT)
    assert up.wait(timeout=60) == 0  # and what it adopted goes on
    script = project.start("run", "1", "detach")
    again = read_until(script, "following it")
    assert "it goes on already" in again
    (project.folder / "go").touch()
    script.communicate(timeout=60)
    project.until("the end", lambda: project.newest("run").state == "finished")
    began = [body["from_step"] for body in project.events("run", "attempt.started")]
    assert len(began) == 2 and 20 <= began[1] <= 40


NOTEBOOK = """
    import pathlib, time
    import torch
    import penstock as ps

    def fit(run):
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(40):
            run.backward(model(torch.ones(4, 2)).square().mean())
            run.step(optimizer)
            time.sleep(0.01)
            while step == 10 and not pathlib.Path("go").exists():
                time.sleep(0.01)

    try:
        ps.train(fit, name="run", workers=2)
    except ps.errors.CannotTravel as refused:
        print(refused.fix)
    try:
        ps.train(fit, name="run", workers=0, checkpoint_every=5)
    except ps.errors.RunStopped as stopped:
        print("STOPPED", stopped.facts["step"])
    ps.train(fit, name="run", workers=0, checkpoint_every=5)
    """


def test_a_function_of_a_notebook_trains_in_it_is_stopped_from_elsewhere_and_goes_on(project):
    script = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(NOTEBOOK)],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    project.until("step 5", lambda: project.committed("run") >= 5)
    with project.stores() as stores:
        control.stop(stores, project.newest("run").id)
    (project.folder / "go").touch()
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    assert "or train in this process: workers=0" in out
    assert out.count("no other process can go on with this run") == 2
    first, second = project.events("run", "attempt.started")
    assert f"STOPPED {second['from_step']}" in out  # it had saved where it stopped
    assert first["from_step"] == 0 and 5 <= second["from_step"] < 40
    run = project.newest("run")
    assert (run.state, run.step, run.source) == ("finished", 40, "")


@pytest.mark.long
def test_checkpoints_by_the_clock_are_of_one_step_on_all_ranks(project, undisturbed):
    project.edit(("checkpoint_every=10", 'checkpoint_every="0.1s"'))
    script = project.start("run", "2")
    project.until("a checkpoint", lambda: project.committed("run") >= 10)
    project.kill("run", "rank")
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    assert project.newest("run").result["weights"] == undisturbed(2)
    assert len(project.events("run", "checkpoint.committed")) > 1


def test_what_cannot_travel_is_refused_before_anything_starts(project):
    wrong = """
    for function, config in (
        (fit, Config(pause=print)), (fit, Config(pause=float("nan"))), (fit, Config),
        (lambda run: None, None),
    ):
        try:
            ps.train(function, config, name="run")
        except ps.PenstockError as error:
            print("refused:", error.exit_code, error.what)
    """
    project.edit(("    ps.main(main)", textwrap.indent(textwrap.dedent(wrong), "    ")))
    refused = [line for line in project.run().splitlines() if line.startswith("refused: 2 ")]
    words = ("config.pause is a builtin_function", "config.pause is nan", "is the class Config",
             "a lambda has no name")  # fmt: skip
    assert len(refused) == 4
    assert all(word in line for word, line in zip(words, refused, strict=True))
    assert project.newest("run") is None
