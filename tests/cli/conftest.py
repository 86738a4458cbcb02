"""A home with one of everything, made through the real stores, and the command line on it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from penstock.base.process import Identity
from penstock.base.settings import load_settings
from penstock.cli.main import run
from penstock.jobs.stores import Stores, open_stores
from penstock.records import Attempt, Checkpoint, Evaluation, Run, to_json


class Terminal:
    """Runs commands in this process, as a pipe would see them."""

    def __init__(self, capsys) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, expect: int = 0) -> str:
        """Standard output of a command that ends with `expect`."""
        self._capsys.readouterr()
        code = run(arguments)
        self.out, self.err = self._capsys.readouterr()
        assert code == expect, self.out + self.err
        assert "Traceback" not in self.out + self.err
        return self.out

    def json(self, *arguments: str, expect: int = 0):
        return json.loads(self(*arguments, "--json", expect=expect))


@pytest.fixture
def terminal(capsys, monkeypatch, tmp_path) -> Terminal:
    for name in [key for key in os.environ if key.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Terminal(capsys)


@pytest.fixture(scope="session")
def home_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    with open_stores(load_settings(folder, {}, home=folder)) as stores:
        add_runs(stores)
        add_versions(stores)
    return folder


@pytest.fixture
def home(terminal, home_once, tmp_path) -> Path:
    """The folder of a home with two runs, a dataset, two models, evaluations: a copy."""
    return Path(shutil.copytree(home_once, tmp_path / "home"))


def add_runs(stores: Stores) -> None:
    """A finished run, and one whose owner is dead."""
    spec = {"entry": "train:fit", "config": {"lr": 0.1}, "world_size": 2, "cwd": "."}
    digest = stores.blobs.put(b"not really a checkpoint")
    with stores.meta.write() as tx:
        now = tx.now()
        tx.add_run(
            Run("run-aaa1", "base", "train", "finished", spec, step=400, created_at=now - 90)
        )
        tx.change_run("run-aaa1", ended_at=now - 30, data={"digits:train": "digits@1:train"})
        tx.add_attempt(Attempt("run-aaa1", 1, 1, now - 90, 0))
        tx.end_attempt("run-aaa1", 1, "rank 1 died by SIGKILL", 183, {})
        tx.add_attempt(Attempt("run-aaa1", 2, 2, now - 60, 180))
        tx.add_checkpoint(Checkpoint("run-aaa1", 180, digest, 1, now - 61, 23), [digest])
        tx.add_run(Run("run-bbb2", "wild", "train", "running", spec, step=7, created_at=now - 10))
        dead = Identity(Identity.mine().host, "another-boot", 1, 1)
        tx.take_lease("run/run-bbb2", str(dead), 30.0)
        tx.event("run/run-aaa1", "run.finished", {"step": 400})


def add_versions(stores: Stores) -> None:
    """digits@1; digits-cnn@1 that passed and @2 that did not."""
    data = stores.blobs.put(to_json({"splits": {"train": {"rows": 3}}, "lineage": {}}))
    reports = [
        stores.blobs.put(to_json({"metrics": {"accuracy": {"value": v}}})) for v in (0.98, 0.1)
    ]
    with stores.meta.write() as tx:
        tx.add_version("dataset", "digits", data, "prepare/1", {"rows": 3}, [data])
        for number, report in enumerate(reports, 1):
            package = stores.blobs.put(to_json({"name": "digits-cnn", "number": number}))
            tx.add_version("model", "digits-cnn", package, f"run/{number}", {}, [package])
            tx.add_evaluation(
                Evaluation(
                    id=f"eval-{number}",
                    key=f"key-{number}",
                    suite="digits",
                    model=f"digits-cnn@{number}",
                    dataset="digits@1:test",
                    digest=report,
                    passed=number == 1,
                    created_at=tx.now(),
                    summary={
                        "accuracy": 0.98,
                        "gates": [{"outcome": "failed", "says": "accuracy 0.1 is below 0.95"}],
                    },
                ),
                [report],
            )


def make_points():
    return [{"id": f"p{n:02}", "x": n / 3 if n else float("nan")} for n in range(24)]


def make_more():
    return [*make_points(), {"id": "p24", "x": 8.5}]


TURNS = 1_000_000  # of the loop of `slow_model`

PREPARE = """
import penstock as ps

def rows():
    return [{"x": 1}]

ps.prepare("ones", rows)
"""


@pytest.fixture(scope="session")
def furnished_once(tmp_path_factory) -> Path:
    """A folder with the home of `home` and a whole life beside it, from data to an endpoint.

    points@2 -> run "whole" with a checkpoint -> toy@1 -> eval-3 -> production -> "kept"
    """
    folder = tmp_path_factory.mktemp("furnished")
    (folder / "raw.csv").write_text("id,x\na,1\nb,2\n")
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "points.toml").write_text("[columns.x]\nmissing = { most = 0.5 }\n")
    with open_stores(load_settings(folder, {}, home=folder / "home")) as stores:
        add_runs(stores)
        add_versions(stores)
        add_life(stores)
    return folder


@pytest.fixture
def furnished(terminal, furnished_once, tmp_path) -> Path:
    """The folder of a copy of that home; this is the folder above it."""
    shutil.copytree(furnished_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "home"


@pytest.fixture
def slow_model(furnished) -> str:
    """The reference of a model that takes about a second for an answer."""
    with open_stores(load_settings()) as stores:
        publish(stores, "slow", turns=TURNS)
    return "slow@1"


def add_life(stores: Stores) -> None:
    from penstock import data, registry, serving

    for rows in (make_points, make_more):
        data.prepare(stores, "points", rows, key="id", splits={"train": 0.7, "test": 0.3})
    checkpoint, refs = whole_checkpoint(stores, "run-ccc3")
    with stores.meta.write() as tx:
        asked = {"points:train": "points@2:train"}
        tx.add_run(Run("run-ccc3", "whole", "train", "finished", {}, data=asked, step=30))
        tx.add_checkpoint(checkpoint, [checkpoint.digest, *refs])
    publish(stores, "toy", "run/run-ccc3")
    tell(stores, "run-ccc3")
    with stores.meta.write() as tx:
        report = stores.blobs.put(to_json({"metrics": {}, "slices": [], "gates": []}))
        passed = Evaluation(
            "eval-3", "key-3", "points", "toy@1", "points@2:test", report, True, tx.now(), {}
        )
        tx.add_evaluation(passed, [report])
    registry.promote(stores, "toy@1", "production", "eval-3")
    serving.deploy(stores, "kept", "toy@production")


def whole_checkpoint(stores: Stores, run_id: str) -> tuple[Checkpoint, list[str]]:
    """Of one rank, at step 30, as a gang would save it."""
    from penstock import checkpoints as ck

    plan = ck.plan({"weights": b"seven".ljust(64)}, {}, 0, 1)
    buffer = memoryview(bytearray(plan.nbytes))
    plan.copy_into(buffer)
    part = ck.persist(buffer, plan.index, stores.blobs)
    content, refs = ck.assemble(run_id, 30, 1, 1, [part], {})
    digest = stores.blobs.put(content)
    return Checkpoint(run_id, 30, digest, 1, 0.0, plan.nbytes), refs


def tell(stores: Stores, run_id: str) -> None:
    """Its log, and a loss that diverged."""
    from penstock.signals import Emitter

    logs = stores.layout.logs(run_id)
    logs.mkdir(parents=True)
    (logs / "rank-0.log").write_text("first\nsecond\n")
    emitter = Emitter(stores.layout.signals(run_id), run_id, 0, 1, segment_bytes=16384)
    for step, loss in enumerate((0.5, float("inf"), float("nan")), 1):
        emitter.scalar(step, "loss", loss)
    emitter.close()


def publish(stores: Stores, name: str, producer: str = "test", turns: int = 1) -> None:
    """A model that gives back its input, after so many turns of nothing; made without torch."""
    from onnx import TensorProto, helper

    from penstock.registry.manifest import File, Package, Place
    from penstock.registry.signature import Signature, TensorSpec

    def value(name: str, kind: int = TensorProto.FLOAT, shape: tuple = ("batch", 2)):
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [helper.make_node("Identity", [a], [b]) for a, b in (("go", "on"), ("in", "out"))],
        "body",
        [value("turn", TensorProto.INT64, ()), value("go", TensorProto.BOOL, ()), value("in")],
        [value("on", TensorProto.BOOL, ()), value("out")],
    )
    nodes = [helper.make_node("Loop", ["turns", "true", "x"], ["y"], body=body)]
    constants = [
        helper.make_tensor("turns", TensorProto.INT64, (), [turns]),
        helper.make_tensor("true", TensorProto.BOOL, (), [True]),
    ]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content = model.SerializeToString(deterministic=True)
    blob = stores.blobs.put(content)
    x, y = (TensorSpec(each, "float32", (-1, 2)) for each in "xy")
    files = {"onnx": File(blob, len(content))}
    package = Package(1, name, Signature((x,), (y,)), files, (Place("x", "x"),))
    digest = stores.blobs.put(to_json(package))
    with stores.meta.write() as tx:
        tx.add_version("model", name, digest, f"{producer}/{name}", {}, [digest, blob])
