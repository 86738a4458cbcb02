"""Models in shards (FSDP2): resumed without a bit changed, at other numbers of ranks, published."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from tests.training.conftest import PROJECT as POINTS
from tests.training.conftest import STEPS, Project

from penstock.base.errors import BadInput
from penstock.checkpoints import weights_digest
from penstock.training import distributing

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

# The project of the other tests, with a training function of its own.
PROJECT = (
    POINTS[: POINTS.index("    def fit")]
    .replace("import sys\n", "import json\n    import sys\n", 1)
    .replace("import dataclass\n", "import dataclass\n    from pathlib import Path\n", 1)
    .replace("pause: float = 0.01", "pause: float = 0.0", 1)
    + """
    def weights(net) -> str:
        from penstock.checkpoints import is_distributed, weights_digest

        state = net.state_dict()
        full = {k: v.full_tensor() if is_distributed(v) else v for k, v in state.items()}
        return weights_digest({k: v for k, v in full.items() if "running" not in k})

    def fit(run: "ps.Run", config: Config) -> None:
        import torch
        import torch.nn.functional as F

        class Block(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = torch.nn.Linear(7, 7)
                self.norm = torch.nn.BatchNorm1d(7)

            def forward(self, x):
                return x + torch.relu(self.norm(self.inner(x)))

        net = torch.nn.Sequential(
            torch.nn.Linear(6, 7), torch.nn.Sequential(Block(), Block(), Block()),
            torch.nn.Dropout(0.1), torch.nn.Linear(7, 2),
        )
        model = run.distribute(net, "fsdp")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        train = run.data("points:all", batch_size=24, epochs=config.epochs)
        val = run.data("points:all", batch_size=20, shuffle=False)
        run.track(model=model, optimizer=optimizer, train=train)

        def tell(**facts):
            if run.rank == 0:
                with Path("told").open("a") as file:
                    print(json.dumps({"ranks": run.world_size, **facts}), file=file)

        for batch in run.steps(train, compare_every=5):
            if run.global_step in (0, 30, 50):
                tell(begins=run.global_step, weights=weights(model))
            loss = F.cross_entropy(model(batch["point"]), batch["label"])
            if run.global_step == 4 and run.rank == 0:
                loss = loss * float("nan")
            run.backward(loss)
            taken = run.step(optimizer, clip=0.5)
            if run.rank == 1 and not taken:
                print("LEFT OUT", run.global_step + 1, flush=True)
            run.log({"train/loss": loss})
            if run.every(20):
                hits = lambda b: (model(b["point"]).argmax(1) == b["label"]).float()
                run.log({"val/accuracy": run.evaluate(hits, val)})
            time.sleep(config.pause)
        tell(ends=run.global_step, weights=weights(model))
        run.publish("points", model, example=train.example(2))

    def main() -> None:
        ps.prepare("points", make_points, key="id", splits={"all": 1.0})
        name, workers, pause, *rest = sys.argv[1:]
        trained = ps.train(
            fit, Config(float(pause)), name=name, workers=int(workers), checkpoint_every=10,
            seed=3, threads=1, init_from=rest[0] if rest else None,
        )
        print("RUN", trained.run.id, flush=True)

    if __name__ == "__main__":
        ps.main(main)
    """
)


@pytest.fixture
def sharded(tmp_path):
    project = Project(tmp_path / "project", PROJECT)
    yield project
    project.close()


def told(project: Project, key: str) -> dict[int, list[str]]:
    """step -> digests of the weights, as rank 0 told them where an attempt began or ended."""
    found: dict[int, list[str]] = {}
    for line in (project.folder / "told").read_text().splitlines():
        facts = json.loads(line)
        if key in facts:
            found.setdefault(facts[key], []).append(facts["weights"])
    return found


@pytest.mark.long
@pytest.mark.faults
def test_a_sharded_run_that_was_killed_ends_with_the_weights_of_one_that_was_not(sharded) -> None:
    """At 2 ranks."""
    sharded.run("calm", "2", "0")
    script = sharded.start("hurt", "2", "0.02")
    for step in (20, 50):
        sharded.until(f"step {step}", lambda step=step: sharded.committed("hurt") >= step)
        sharded.signal(sharded.pids("hurt", "rank")[0], signal.SIGKILL)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    calm, hurt = sharded.newest("calm"), sharded.newest("hurt")
    assert (hurt.state, hurt.step, hurt.result["skipped"]) == ("finished", STEPS, 1)
    assert len(sharded.events("hurt", "attempt.started")) == 3
    assert hurt.result["weights"] == calm.result["weights"]
    assert len(set(told(sharded, "ends")[STEPS])) == 1


def test_a_sharded_model_is_published_whole(sharded) -> None:
    """At 2 ranks; a gradient that is not finite on one is left out on both."""
    from penstock.registry import weights

    sharded.run("run", "2", "0")
    run = sharded.newest("run")
    assert (run.state, run.step, run.result["skipped"]) == ("finished", STEPS, 1)
    assert "LEFT OUT 5" in sharded.log("run", "rank-1")
    with sharded.stores() as stores, stores.meta.read() as db:
        version = db.get_version("model", run.result["model"])
        found = weights(stores.blobs, version.digest)
    assert found["1.2.inner.weight"].shape == (7, 7)
    assert type(found["3.bias"]) is torch.Tensor
    whole = {key: value for key, value in found.items() if "running" not in key}
    assert told(sharded, "ends")[STEPS] == [weights_digest(whole)]


@pytest.mark.long
def test_other_runs_begin_with_a_sharded_model_and_with_its_checkpoint(sharded) -> None:
    sharded.run("run", "2", "0")
    [ends] = told(sharded, "ends")[STEPS]
    sharded.run("again", "1", "0", "model/points")
    assert told(sharded, "begins")[0][-1] == ends
    sharded.run("once-more", "2", "0", "run/run")
    assert told(sharded, "begins")[0][-1] == ends


@pytest.mark.long
def test_a_loop_that_communicates_itself_leaves_a_step_out_on_all_ranks_or_on_none(sharded) -> None:
    """strategy="plain" at 2 ranks; one rank's gradient is spoilt after the ranks exchanged them."""
    sharded.edit(
        ('run.distribute(net, "fsdp")', 'run.distribute(net, "plain")'),
        ("if run.global_step == 4 and run.rank == 0:", "if False:"),
        (
            "taken = run.step",
            "for p in model.parameters():\n            torch.distributed.all_reduce(p.grad)\n"
            "            p.grad /= run.world_size\n"
            "        if run.global_step == 4 and run.rank == 0: p.grad[0] = float('inf')\n"
            "        taken = run.step",
        ),
    )
    sharded.run("run", "2", "0")
    run = sharded.newest("run")
    assert (run.state, run.step, run.result["skipped"]) == ("finished", STEPS, 1)
    assert "LEFT OUT 5" in sharded.log("run", "rank-1")


@pytest.mark.long
def test_the_number_of_ranks_changes_on_the_way_and_the_weights_that_are_loaded_do_not(
    sharded,
) -> None:
    """2 ranks, then 3, then 1, on a mesh of their own: rank 0 tells a digest of the whole weights
    before and after each step."""
    mesh = 'init_device_mesh("cpu", (1, run.world_size), mesh_dim_names=("copies", "shards"))'
    sharded.edit(
        ('run.distribute(net, "fsdp")', f"run.distribute(net, mesh={mesh})"),
        ("import torch\n", "import torch\n    from torch.distributed import init_device_mesh\n"),
    )
    sharded.edit(
        ("if run.global_step in (0, 30, 50):", "if True:"),
        (
            "time.sleep(config.pause)",
            "tell(begins=run.global_step + 1, weights=weights(model))\n"
            "        time.sleep(config.pause)",
        ),
    )
    for workers, until in (("2", 20), ("3", 40)):
        script = sharded.start("run", workers, "0.3")
        sharded.until(f"step {until}", lambda until=until: sharded.committed("run") >= until)
        script.send_signal(signal.SIGINT)
        script.communicate(timeout=150)
    sharded.run("run", "1", "0")
    found = told(sharded, "begins")
    assert sorted(found) == list(range(STEPS + 1))
    assert all(len(set(digests)) == 1 for digests in found.values())
    resumed = [body["step"] for body in sharded.events("run", "attempt.resumed")]
    assert len(resumed) == 2
    assert sharded.newest("run").state == "finished"


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
        self.tail = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.ReLU())


def test_repeated_blocks_are_found_or_those_that_were_named() -> None:
    net = Net()
    assert list(distributing.chosen(net, None)) == list(net.layers)
    linear = [*net.layers, net.tail[0]]
    assert list(distributing.chosen(net, torch.nn.Linear)) == linear
    assert list(distributing.chosen(net, [torch.nn.Linear])) == linear
    assert list(distributing.chosen(net, lambda each: each is net.tail)) == [net.tail]
    with pytest.raises(BadInput, match="chooses no module"):
        list(distributing.chosen(net, torch.nn.Conv1d))


@pytest.mark.parametrize(
    "options, what",
    [
        ({"strategy": "fsdpp"}, "is no strategy"),
        ({"strategy": "ddp", "mesh": object()}, "no use for a mesh"),
        ({"strategy": "plain", "wrap": Net}, "takes no wrap"),
    ],
)
def test_what_does_not_go_together_is_refused(options, what) -> None:
    with pytest.raises(BadInput, match=what):
        distributing.distribute(Net(), torch.device("cpu"), 2, **options)
