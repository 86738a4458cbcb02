"""Runs whose weights begin as those of another run's checkpoint or of a published version."""

import pytest

from penstock.base.errors import BadInput, Damaged, NotFound
from penstock.checkpoints import load, read_manifest, weights_digest
from penstock.home.gc import collect_garbage
from penstock.home.local import LocalHome
from penstock.training.initial import resolve

from .test_forks import damage, drop_all

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]


def warm(project):
    """The project: `from=REFERENCE` on its command line; every rank tells how its weights begin."""
    project.edit(
        ("pause: float = 0.01", "pause: float = 0.005"),
        ("import sys\n", "import pathlib\nimport sys\n"),
        ("checkpoint_every=10,", "checkpoint_every=10, init_from=given(rest),"),
        (
            "def main()",
            "def given(words):\n"
            "    return next((word[5:] for word in words if word.startswith('from=')), None)\n\n"
            "def main()",
        ),
        (
            "        loss =",
            "        if run.global_step == 0:\n"
            "            from penstock.checkpoints import weights_digest\n"
            "            told = pathlib.Path(f'begin-{run.name}-{run.rank}')\n"
            "            told.write_text(weights_digest(net.state_dict()))\n"
            "        while run.global_step == 5 and pathlib.Path('hold').exists():\n"
            "            time.sleep(0.01)\n"
            "        loss =",
        ),
    )
    return project


def weights_at(project, name, step):
    """Digest of the model's weights in a checkpoint."""
    with project.stores() as stores:
        with stores.meta.read() as db:
            rows = db.checkpoints(db.newest_run(name, "train").id)
        [row] = [row for row in rows if row.step == step]
        manifest = read_manifest(stores.blobs, row.digest)
        state = load(stores.blobs, manifest, 0, manifest.world_size)
    return weights_digest(state.shared["tracked"]["model"])


def begun(project, name):
    """rank -> digest of the weights before its first step."""
    files = project.folder.glob(f"begin-{name}-*")
    return {int(file.name.rpartition("-")[2]): file.read_text() for file in files}


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.long)])
def test_weights_begin_as_in_a_checkpoint_or_a_version_on_all_ranks(project, workers):
    warm(project)
    project.run("base", workers)
    ranks = range(max(1, int(workers)))
    out = project.run("warm", workers, "from=base@50")
    assert "begins with the weights of base@50" in out
    assert begun(project, "warm") == dict.fromkeys(ranks, weights_at(project, "base", 50))
    first, last = project.newest("base"), project.newest("warm")
    assert last.step == 80 and last.result["weights"] != first.result["weights"]
    kept = last.spec["init_from"]
    assert (kept["asked"], kept["run"], kept["step"]) == ("base@50", first.id, 50)
    project.run("again", workers, "from=points@1")
    assert begun(project, "again") == dict.fromkeys(ranks, first.result["weights"])
    assert project.newest("again").spec["init_from"]["reference"] == "points@1"
    home = LocalHome(project.settings)
    assert "points@2 <- warm <- base@50 <- points@1" in home.why("points@2")["line"]
    assert "points@3 <- again <- points@1 <- base <- points@1" in home.why("points@3")["line"]
    home.close()
    drop_all(project, "base")
    assert "reused run warm" in project.run("warm", workers, "from=base@50")
    out = project.run("warm", workers, "from=points@1")
    assert "changed: init_from: base@50 -> points@1" in out
    assert project.newest("warm").id != last.id
    assert project.newest("warm").result["weights"] == project.newest("again").result["weights"]


@pytest.mark.parametrize("workers", [pytest.param("0", marks=pytest.mark.long), "2"])
def test_the_weights_are_put_in_before_the_first_checkpoint_and_never_after_it(project, workers):
    warm(project)
    project.run("base", workers)
    (project.folder / "hold").touch()
    script = project.start("warm", workers, "from=base@50")
    project.until("its first steps", lambda: begun(project, "warm"))
    project.until("its event", lambda: len(project.events("warm", "weights.initialised")) == 1)
    kill(project, script, workers)
    drop_all(project, "base")  # from now on only the run's own row keeps those weights
    with project.stores() as stores:
        collect_garbage(stores, grace_seconds=0)
    if workers == "0":
        script = project.start("warm", workers, "from=base@50")
    project.until("again", lambda: len(project.events("warm", "weights.initialised")) == 2)
    (project.folder / "hold").unlink()
    project.until("step 10", lambda: project.committed("warm") >= 10)
    kill(project, script, workers)
    if workers == "0":
        script = project.start("warm", workers, "from=base@50")
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    assert len(project.events("warm", "weights.initialised")) == 2
    assert len(project.events("warm", "attempt.started")) == 3
    run = project.newest("warm")
    with project.stores() as stores:
        assert all(stores.blobs.exists(each) for each in run.spec["init_from"]["blobs"])


def kill(project, script, workers):
    if workers == "0":
        script.kill()
        script.communicate()
    else:
        project.kill("warm", "rank")


@pytest.mark.long
def test_what_does_not_fit_is_one_clear_error_and_nothing_is_trained(project):
    warm(project)
    project.run("base", "1")
    project.edit(("Linear(6, 32)", "Linear(6, 16)"), ("BatchNorm1d(32)", "BatchNorm1d(16)"))
    project.edit(("Linear(32, 2)", "Linear(16, 2, bias=False)"))
    out = project.run("warm", "2", "from=base@50", code=2)
    assert "8 of its parameters and buffers differ" in out
    assert "model.0.weight is [16, 6] here and [32, 6] there" in out and "and 4 more" in out
    run = project.newest("warm")
    assert run.state == "failed" and project.committed("warm") == 0 and run.step == 0
    assert len(project.events("warm", "attempt.started")) == 1
    assert "8 of its parameters" in project.run("plain", "0", "from=points@1", code=2)
    project.edit(("run.track(model=model,", "run.track(net=model,"))
    assert 'tracks no "net", only model, optimizer, train' in project.run(
        "other", "0", "from=base", code=2
    )


@pytest.mark.long
def test_what_is_not_there_is_refused_before_anything_starts(project):
    warm(project)
    project.run("base", "1")
    out = project.run("warm", "2", "from=bose@50", code=3)
    assert 'no run and no model "bose"' in out and 'Did you mean "base"' in out
    assert "There are those of steps 80" in project.run("warm", "2", "from=base@55", code=3)
    out = project.run("warm", "2", "from=points@7", code=3)
    assert 'model "points"' in out and "The newest is points@1." in out
    assert project.newest("warm") is None
    damage(project, "base", 80)
    assert "base@70" in project.run("warm", "0", "from=base@80", code=6)
    out = project.run("warm", "0", "from=base")
    assert "init_from: taking base@70, the newest whole one" in out
    assert project.newest("warm").spec["init_from"]["step"] == 70
    project.run("points", "0")
    with project.stores() as stores:
        with pytest.raises(BadInput, match="is a run and a model"):
            resolve(stores, "points@2")
        assert resolve(stores, "run/points@50")[0]["kind"] == "run"
        assert resolve(stores, "model/points@2")[0]["reference"] == "points@2"
        with stores.meta.write() as tx:
            tx.move_alias("model", "points", "production", 1, None)
        assert resolve(stores, "points@production")[0]["reference"] == "points@1"
        with pytest.raises(NotFound):
            resolve(stores, "model/base")
        path = stores.blobs.path(resolve(stores, "model/points@1")[0]["weights"])
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
        with pytest.raises(Damaged):
            resolve(stores, "model/points@1")


@pytest.mark.long
def test_weights_named_when_a_run_has_checkpoints_come_too_late_and_are_not_told_of(project):
    warm(project)
    project.run("base", "0")
    script = project.start("run", "0")
    project.until("step 10", lambda: project.committed("run") >= 10)
    script.kill()
    script.communicate()
    out = project.run("run", "0", "from=base@50")
    assert "changed: init_from: None -> base@50" in out and "begins with" not in out
    run = project.newest("run")
    assert run.spec["init_from"] == {"asked": "base@50", "kind": None}
    assert run.result["weights"] == project.newest("base").result["weights"]
