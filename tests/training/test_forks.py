"""Runs that begin at a checkpoint of another run."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from penstock.base.errors import BadInput, CannotTravel, Conflict, Damaged, NotFound
from penstock.checkpoints import read_manifest, relabelled
from penstock.home.gc import collect_garbage
from penstock.home.local import LocalHome
from penstock.jobs import control

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]

ALL = ("controller", "agent", "image", "rank", "sidecar")


def with_rate(project):
    """The project, its learning rate in the config."""
    project.edit(
        ("pause: float = 0.01", "pause: float = 0.0\n    lr: float = 1e-2"),
        ("lr=1e-2)", "lr=config.lr)"),
    )
    return project


def said(project, *words):
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", *words],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command(project, *words):
    """What a command answers, as JSON."""
    return json.loads(said(project, *words, "--json"))


def finished(project, name):
    """The run of this name, when it has ended well."""
    project.until(
        f"the end of {name}", lambda: project.newest(name).state in ("finished", "failed")
    )
    run = project.newest(name)
    assert run.state == "finished", run.error
    project.nothing_left()
    return run


def drop_all(project, name):
    """Forget every checkpoint of a run, and condemn what nothing needs any more."""
    run = project.newest(name)
    with project.stores() as stores:
        with stores.meta.write() as tx:
            for row in tx.checkpoints(run.id):
                tx.drop_checkpoint(run.id, row.step)
        return collect_garbage(stores, grace_seconds=0).condemned


def damage(project, name, step):
    """Change a byte in the first part of a checkpoint."""
    with project.stores() as stores:
        with stores.meta.read() as db:
            rows = db.checkpoints(db.newest_run(name, "train").id)
        [row] = [row for row in rows if row.step == step]
        path = stores.blobs.path(read_manifest(stores.blobs, row.digest).parts[0].blob)
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_fork_ends_as_its_parent_did_and_one_with_another_rate_differs_and_tells_why(
    project, workers
):
    with_rate(project)
    project.run("base", workers)
    base = project.newest("base")
    same = command(project, "runs", "fork", "base@50")
    assert same["origin"] == "base@50" and same["changed"] == []
    run = finished(project, "base-fork-1")
    assert run.id == same["run"]["id"] and run.data == base.data
    assert run.result["weights"] == base.result["weights"]
    assert [body["from_step"] for body in project.events(run.name, "attempt.started")] == [50]
    command(project, "runs", "fork", "base@50", "lr=1e-3")
    other = finished(project, "base-fork-2")
    assert other.result["weights"] != base.result["weights"]
    [resumed] = project.events(other.name, "attempt.resumed")
    assert resumed["changed"] == ["optimizer.lr: 0.01 -> 0.001"]
    [forked] = project.events(other.name, "run.forked")
    assert forked["changed"] == ["config.value.lr: 0.01 -> 0.001"]
    assert (forked["run"], forked["step"]) == (base.id, 50)
    shown = command(project, "runs", "show", other.name)
    assert shown["spec"]["forked_from"] == {"run": base.id, "name": "base", "step": 50}
    assert [row["step"] for row in shown["checkpoints"]] == [80, 70, 60, 50]
    home = LocalHome(project.settings)
    line = home.why(other.result["model"])["line"]
    home.close()
    assert "<- base-fork-2 <- base@50 <- points@1" in line


@pytest.mark.parametrize("workers", [pytest.param("0", marks=pytest.mark.long), "2"])
def test_a_fork_goes_on_after_sigkill_though_nothing_of_its_parent_is_left(project, workers):
    with_rate(project)
    project.run("base", workers)
    weights = project.newest("base").result["weights"]
    command(project, "runs", "fork", "base@40", "pause=0.3", "--name", "other")
    project.until("a step", lambda: project.events("other", "attempt.stepping"))
    assert drop_all(project, "base") > 0
    assert project.committed("other") == 40  # it has none but the one that it began with
    project.kill("other", *ALL)
    project.nothing_left()
    with project.stores() as stores:
        assert collect_garbage(stores, grace_seconds=0).purged > 0
        run = project.newest("other")
        config = {**run.spec["config"], "value": {**run.spec["config"]["value"], "pause": 0.0}}
        with stores.meta.write() as tx:
            tx.change_run(run.id, spec={**run.spec, "config": config})
        control.resume(stores, run.id)
    assert finished(project, "other").result["weights"] == weights
    begun = [body["from_step"] for body in project.events("other", "attempt.started")]
    assert begun == [40, 40]


@pytest.mark.long
def test_what_cannot_be_forked_is_one_clear_error_and_changes_nothing(project):
    with_rate(project)
    project.run("base", "1")
    damage(project, "base", 80)
    home = LocalHome(project.settings)
    cases = [
        (("bas@50",), NotFound, 'Did you mean "base"'),
        (("base@55",), NotFound, "There are those of steps 80, 70, 60, 50, 40."),
        (("base@best",), NotFound, "is marked best"),
        (("base@newest",), BadInput, "RUN@best"),
        (("base@50:all",), BadInput, "a run has none"),
        (("base@50", ["lrr=1e-4"]), BadInput, 'Did you mean "lr"'),
        (("base@50", ["lr=fast"]), BadInput, "lr is of type float"),
        (("base@50", ["lr"]), BadInput, "KEY=VALUE"),
        (("base@50", [], "base"), Conflict, "another name"),
        (("base@50", [], "no name"), BadInput, "cannot be a run name"),
        (("base@80",), Damaged, "The next older one is whole: base@70"),
    ]
    for arguments, kind, words in cases:
        with pytest.raises(kind) as failed:
            home.fork_run(*arguments)
        assert words in str(failed.value), arguments
    assert [run.name for run in home.runs()] == ["base"] and project.leftovers() == []
    made = home.fork_run("base")
    assert made.step == 70 and "checkpoint 80" in made.notes[0]
    assert made.notes[-1] == "taking base@70, the newest whole one"
    run = finished(project, "base-fork-1")
    assert run.result["weights"] == project.newest("base").result["weights"]
    home.close()


@pytest.mark.long
def test_the_best_checkpoint_can_be_named_and_stays_marked(project):
    with_rate(project)
    project.edit(
        (
            '        run.log({"train/loss": loss})',
            '        run.log({"score": 1.0})\n'
            '        run.global_step == 62 and run.keep_best("score")',
        ),
    )
    project.run("base", "1")
    text = said(project, "runs", "fork", "base@best", "pause=0.001")
    assert "begins at base@63" in text and "changed: config.value.pause: 0.0 -> 0.001" in text
    finished(project, "base-fork-1")
    shown = said(project, "runs", "show", "base-fork-1")
    assert "forked from" in shown and f"base@63 ({project.newest('base').id})" in shown
    rows = command(project, "runs", "show", "base-fork-1")["checkpoints"]
    assert {row["step"]: row["best"] for row in rows}[63] == "score"


@pytest.mark.long
def test_a_fork_with_nothing_whole_fails_and_never_begins_at_step_0(project):
    with_rate(project)
    project.run("base", "1")
    command(project, "runs", "fork", "base@50", "pause=0.3", "--name", "other")
    project.until("a step", lambda: project.events("other", "attempt.stepping"))
    project.kill("other", *ALL)
    project.nothing_left()
    damage(project, "other", 50)
    with project.stores() as stores:
        control.resume(stores, project.newest("other").id)
    project.until("its end", lambda: project.newest("other").state == "failed")
    error = project.newest("other").error
    assert error["code"] == "damaged" and "base@50, from which it was forked" in error["what"]


@pytest.mark.long
def test_a_fork_whose_starter_died_before_it_started_anything_is_adopted(project, monkeypatch):
    with_rate(project)
    project.run("base", "1")
    home = LocalHome(project.settings)
    with monkeypatch.context() as patched:
        patched.setattr(control, "start_controller", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            home.fork_run("base@50")
    home.close()
    run = project.newest("base-fork-1")
    assert run.state == "pending" and run.step == 50
    with project.stores() as stores:
        assert control.adopt(stores) == [run.id]
    weights = finished(project, "base-fork-1").result["weights"]
    assert weights == project.newest("base").result["weights"]


@pytest.mark.long
def test_a_function_that_was_typed_into_a_prompt_cannot_be_forked(project):
    project.run("base", "1")
    run = project.newest("base")
    with project.stores() as stores, stores.meta.write() as tx:
        tx.add_run(replace(run, id="run-typed", name="typed", source=""))
        [row, *_] = tx.checkpoints(run.id)
        digest = stores.blobs.put(relabelled(stores.blobs, row.digest, "run-typed"))
        tx.add_checkpoint(replace(row, run_id="run-typed", digest=digest), [])
    home = LocalHome(project.settings)
    with pytest.raises(CannotTravel, match="is in no file"):
        home.fork_run("typed")
    home.close()


@pytest.mark.long
def test_a_failed_run_that_is_resumed_has_all_its_tries_again(project):
    project.edit(
        (
            "    for batch in run.steps(train):",
            "    for batch in run.steps(train):\n"
            "        if run.global_step == 33:\n"
            "            raise ZeroDivisionError('on purpose')",
        ),
    )
    project.run("run", "1", code=8)
    assert len(project.events("run", "attempt.started")) == 2
    command(project, "runs", "resume", "run")
    project.until("its end", lambda: len(project.events("run", "run.failed")) == 2)
    assert len(project.events("run", "attempt.started")) == 4
