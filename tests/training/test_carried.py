"""What a loop takes along into workers that know nothing of its script, and where it refuses."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import textwrap
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from tests.training.conftest import Project

from penstock.base.errors import BadInput, CannotTravel
from penstock.base.settings import Settings, load_settings
from penstock.jobs.stores import open_stores
from penstock.training.forking import fork
from penstock.training.launched import reaching
from penstock.training.launched.carried import carry

LOOPS = """
    import os

    from helping import scale

    calls = []

    def loop(config=None):
        calls.append((config, os.environ["PENSTOCK_HOME"]))
        return scale(2)

    def outer():
        factor = 3
        def inner(config):
            return scale(factor)
        return inner

    class Loop:
        def __init__(self, factor):
            self.factor = factor
        def __call__(self, config):
            return scale(self.factor)
    """


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a project."""
    found = tmp_path / "project"
    found.mkdir()
    (found / "loops.py").write_text(textwrap.dedent(LOOPS))
    (found / "helping.py").write_text("def scale(value):\n    return 10 * value\n")
    return found


@pytest.fixture
def loops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(folder))
    for name in ("loops", "helping"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("loops")


def settings(folder: Path, **given: object) -> Settings:
    home = folder / ".penstock"
    return load_settings(folder=folder, environment={}, home=home, **given)


def test_the_loop_is_called_with_the_scripts_settings_and_this_process_keeps_its_own(
    folder: Path, loops: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", "/of/this/node")
    monkeypatch.setenv("PENSTOCK_KEEP_CHECKPOINTS", "9")
    with open_stores(settings(folder, hang_seconds=7.0)) as stores:
        loop = pickle.loads(pickle.dumps(carry(lambda: stores, loops.loop)))
        assert loop({"lr": 1}) == 20
    assert loops.calls == [({"lr": 1}, str(folder / ".penstock"))]
    assert os.environ["PENSTOCK_HOME"] == "/of/this/node"
    assert os.environ["PENSTOCK_KEEP_CHECKPOINTS"] == "9"


def test_every_setting_arrives_as_it_is(folder: Path) -> None:
    given = settings(
        folder, hang_seconds="off", cache_bytes=10_000, cache_quotas={"digits": "5KB"},
        slurm_requeue=False, devices="gpu:a,b", tensorboard=folder / "boards", peak_flops=2.5e12,
        meta=f"sqlite:///{folder}/rows.db", engine="ray", token="secret",
    )  # fmt: skip
    with open_stores(given) as stores, reaching.settings_of(reaching.variables(stores)):
        assert load_settings(folder=folder) == given.model_copy(
            update={"engine": "processes", "token": None}  # what no rank needs stays
        )


def test_nested_loops_partials_and_objects_count_with_what_they_hold(
    folder: Path, loops: ModuleType
) -> None:
    with open_stores(settings(folder)) as stores:
        of = {
            name: carry(lambda: stores, loop)._carried.subject
            for name, loop in {
                "nested": loops.outer(),
                "partial": partial(loops.loop, config=1),
                "other partial": partial(loops.loop, config=2),
                "object": loops.Loop(1),
                "other object": loops.Loop(2),
            }.items()
        }
        assert all("helping.scale" in subject.code.parts for subject in of.values())
        assert len({subject.code.digest for subject in of.values()}) == 5
        assert all(stores.blobs.exists(subject.kept.source) for subject in of.values())
    assert of["nested"].entry.text == "loops:outer.<locals>.inner"


def test_a_worker_that_does_not_see_the_scripts_home_says_so_and_makes_none(
    folder: Path, loops: ModuleType
) -> None:
    home = folder / ".penstock"
    with open_stores(settings(folder)) as stores:
        loop = carry(lambda: stores, loops.loop)
    home.rename(folder / "elsewhere")
    with pytest.raises(BadInput, match=r"does not reach the script's rows: there is no .*meta\.db"):
        loop()
    assert not home.exists() and loops.calls == []
    with open_stores(settings(folder)):  # another home at the same place, as on another machine
        pass
    with pytest.raises(BadInput, match=r"script's bytes: there is no|another store"):
        loop()
    assert loops.calls == []
    with open_stores(settings(folder)) as stores:
        reaching.mark(stores)
    with pytest.raises(BadInput, match="script's rows: what its settings lead to is another store"):
        loop()


def test_blobs_that_are_not_the_scripts_are_noticed_too(folder: Path, loops: ModuleType) -> None:
    with open_stores(settings(folder)) as stores:
        loop = carry(lambda: stores, loops.loop)
    (folder / ".penstock" / "blobs").rename(folder / "blobs")
    (folder / ".penstock" / "blobs").mkdir()
    with pytest.raises(BadInput, match="script's bytes: what its settings lead to is another"):
        loop()


def test_a_node_has_a_home_of_its_own_where_nothing_of_the_scripts_lies_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_NODE_HOME", str(tmp_path / "node"))
    far = {"PENSTOCK_META": "postgresql://db/penstock", "PENSTOCK_BLOBS": "s3://models"}
    told = {"PENSTOCK_HOME": str(tmp_path / "script")}
    with reaching.settings_of({**told, **far}):
        assert load_settings().home == tmp_path / "node"
    with reaching.settings_of({**told, "PENSTOCK_META": far["PENSTOCK_META"]}):
        assert load_settings().home == tmp_path / "script"  # the blobs are in it
    (tmp_path / "script").mkdir()
    with reaching.settings_of({**told, **far}):
        assert load_settings().home == tmp_path / "script"  # a disk that both have


def test_another_version_of_penstock_is_refused_by_name(
    folder: Path, loops: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_stores(settings(folder)) as stores:
        loop = carry(lambda: stores, loops.loop)
    object.__setattr__(loop._carried, "version", "0.0.9")
    with pytest.raises(BadInput, match=r"the script 0\.0\.9"):
        loop()
    assert loops.calls == []


SCRIPT = """
    import sys
    import ray.cloudpickle as pickles
    import penstock as ps
    from helping import scale

    def loop(config):
        import torch
        run = ps.attach("base", config, checkpoint_every=2)
        model = run.distribute(torch.nn.Linear(2, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(5):
            loss = scale(model(torch.ones(1, 2)).mean())
            run.backward(loss)
            run.step(optimizer)
            if step == config["stops"]:
                return "early"
            assert step != config["fails"], "no"
        return run.finished, run.global_step

    if __name__ == "__main__":
        with open("loop.pickle", "wb") as stream:
            stream.write(pickles.dumps(ps.in_ray_train(loop)))
    """
# As in Ray: the main module, the folder and the environment are the worker's own.
WORKER = """
    import os, sys
    import ray.cloudpickle as pickles
    import penstock as ps

    sys.path.insert(0, sys.argv[1])
    with open(sys.argv[1] + "/loop.pickle", "rb") as stream:
        loop = pickles.load(stream)
    never = {"stops": -1, "fails": -1}
    for config in ({**never, "fails": 3}, {**never, "stops": 3}, never, never):
        try:
            print("GAVE", loop(config), flush=True)
        except AssertionError as error:
            print("RAISED", error, flush=True)
    assert not os.path.exists(".penstock")
    try:
        ps.in_ray_train(loop._loop)
    except ps.errors.CannotTravel as error:
        print("REFUSED", error.what, flush=True)
    """


@pytest.mark.torch
@pytest.mark.long
def test_the_runs_of_a_loop_end_with_it_and_its_code_is_the_scripts(tmp_path: Path) -> None:
    script = Project(tmp_path / "script", SCRIPT)
    worker = Project(tmp_path / "worker", WORKER)
    helping = script.folder / "helping.py"
    helping.write_text("def scale(value):\n    return 10 * value\n")
    del worker.environment["PENSTOCK_HOME"]
    try:
        script.run()
        out = worker.run(str(script.folder))
        said = [line for line in out.splitlines() if line.split()[0] in ("GAVE", "RAISED")]
        assert said == ["RAISED no", "GAVE early", "GAVE (False, 5)", "GAVE (True, 5)"], out
        assert "and this process runs" in next(x for x in out.splitlines() if "REFUSED" in x)
        run = script.newest("base")
        assert run.state == "finished" and run.source and run.spec["entry"] == "train:loop"
        assert {"train.loop", "helping.scale"} <= run.spec["parts"].keys()
        assert not any("worker" in part for part in run.spec["parts"])
        with script.stores() as stores, stores.meta.read() as db:
            ends = [each.cause for each in db.attempts(run.id)]
        assert len(ends) == 3 and "AssertionError: no" in ends[0] and ends[2] == "finished"
        with script.stores() as stores, pytest.raises(CannotTravel, match="attached"):
            fork(stores, "base")  # its ranks would be given what is no training function
        helping.write_text("def scale(value):\n    return 11 * value\n")
        script.run()
        assert "changed: helping.scale" in worker.run(str(script.folder))
        assert script.newest("base").id != run.id
    finally:
        worker.close()
        script.close()


def test_what_cannot_be_kept_is_refused_in_the_script(folder: Path, loops: ModuleType) -> None:
    with open_stores(settings(folder)) as stores, (folder / "helping.py").open() as stream:
        held = partial(loops.loop, stream)
        with pytest.raises(CannotTravel):
            carry(lambda: stores, held)
