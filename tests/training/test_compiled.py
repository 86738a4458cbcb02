"""torch.compile: names without it in checkpoints and packages; a cache that outlives attempts."""

import json
import shutil
import sys

import pytest
import torch

from penstock.base.errors import BadInput
from penstock.blobs import open_blobs
from penstock.checkpoints import read_manifest
from penstock.registry.packaging import package
from penstock.training import group, warm
from penstock.training.distributing import distribute
from penstock.training.tracked import Tracked

pytestmark = pytest.mark.torch


def net():
    torch.manual_seed(5)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.Sequential(torch.nn.Linear(4, 4)), torch.nn.BatchNorm1d(4)
    )


def whole():
    return torch.compile(net(), backend="eager")


def in_place():
    made = net()
    made.compile(backend="eager")
    return made


def a_part():
    made = net()
    made[1] = torch.compile(made[1], backend="eager")
    return made


def both():
    return torch.compile(a_part(), backend="eager")


def tracked(model):
    found = Tracked()
    found.add(model=model)
    return found


WAYS = [whole, in_place, a_part, both]


@pytest.mark.parametrize("make", WAYS)
def test_a_checkpoint_of_a_compiled_model_fits_an_uncompiled_one_and_the_reverse(make):
    compiled, plain = make(), net()
    with torch.no_grad():
        for parameter in compiled.parameters():
            parameter.add_(1.0)
    state = tracked(compiled).state()
    assert list(state["model"]) == list(plain.state_dict())
    tracked(plain).load(state, step=1)
    assert all(map(torch.equal, plain.parameters(), compiled.parameters()))

    other = make()
    tracked(other).load(tracked(plain).state(), step=1)
    assert all(map(torch.equal, other.parameters(), plain.parameters()))
    assert torch.equal(other.eval()(torch.ones(1, 3)), plain.eval()(torch.ones(1, 3)))


def test_a_checkpoint_that_has_the_prefix_still_fits():
    old = {"model": torch.compile(net(), backend="eager").state_dict()}
    for make in (net, *WAYS):
        tracked(make()).load(old, step=1)


@pytest.mark.parametrize("make", WAYS)
def test_weights_to_begin_with_fit_either(make):
    initial = {"kind": "model", "reference": "points@1"}
    model = make()
    with torch.no_grad():
        model.get_parameter(next(iter(dict(model.named_parameters())))).zero_()
    assert warm.put({"model": group.unwrap(model)}, {"": net().state_dict()}, initial) == 9
    assert all(map(torch.equal, model.parameters(), net().parameters()))


def test_a_package_of_a_compiled_model_is_that_of_an_uncompiled_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # its file takes longest, and is not compared
    blobs, example = open_blobs("memory://"), torch.ones(2, 3)
    made = [package(make(), blobs=blobs, name="points", example=example) for make in (net, *WAYS)]
    assert len({each.digest for each in made}) == 1


def test_a_compiled_model_is_not_put_into_shards():
    with pytest.raises(BadInput, match="Compile afterwards"):
        distribute(whole(), torch.device("cpu"), 1, "fsdp")


REAL = """
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(16, 2),
    )
    model = torch.compile(run.distribute(net))
    from torch._dynamo.utils import counters
    from torch._inductor.async_compile import AsyncCompile
    AsyncCompile.warm_pool()  # as it is where there is Triton
    AsyncCompile.wakeup()
"""
TELL = """        time.sleep(config.pause)
        if run.global_step % 10 == 0:
            found = dict(counters["inductor"])
            print(json.dumps([found.get("fxgraph_cache_" + how, 0) for how in ("hit", "miss")]))
"""


def compiles(project):
    source = (project.folder / "train.py").read_text()
    old = source[source.index("    net = torch") : source.index("    optimizer =")]
    project.edit(
        (old, REAL),
        ("        time.sleep(config.pause)\n", TELL),
        ("import sys\n", "import json, sys\n"),
        ("pause: float = 0.01", "pause: float = 0.05"),  # so that it is killed on its way
    )
    project.environment["TORCHINDUCTOR_COMPILE_THREADS"] = "2"


def two_or_more(found):
    return found if len(found) > 1 else None


def workers(project):
    return [line for line in project.leftovers() if "compile_worker" in line]


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on CPUs")
def test_a_second_attempt_takes_what_the_first_compiled_and_no_bit_changes(project):
    compiles(project)
    script = project.start("run", "1")
    project.until("step 20", lambda: project.committed("run") >= 20, 120)
    old = project.until("the pool and its processes", lambda: two_or_more(workers(project)))
    project.kill("run", "rank")
    project.until("the end of its workers", lambda: not set(old) & set(workers(project)), 10)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    project.nothing_left()

    told = [
        json.loads(line) for line in project.log("run", "rank-0").splitlines() if line[0] == "["
    ]
    hits, misses = told[0]
    assert misses > 0 and hits == 0, f"the first attempt compiles: {told}"
    hits, misses = told[-1]
    assert hits > 0 and misses == 0, "the second finds it all"
    run = project.newest("run")
    with project.stores() as stores, stores.meta.read() as db:
        manifest = read_manifest(stores.blobs, db.checkpoints(run.id)[-1].digest)
        sizes = [row.bytes for row in db.checkpoints(run.id)]
    names = [entry.name for entry in manifest.shared.entries]
    assert "shared.tracked.model.0.weight" in names and not [n for n in names if "_orig_mod" in n]
    assert max(sizes) < 100_000, "nothing compiled is in it"
    assert list((project.home / "cache" / "compiled" / "inductor" / "fxgraph").iterdir())

    project.run("twin", "1")
    assert project.newest("twin").result["weights"] == run.result["weights"]
