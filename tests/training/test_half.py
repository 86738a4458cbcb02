"""fp16 with micro-batches, several ranks and shards: one scale and one verdict for all of them, as
torch's GradScaler has them, and no bit changes over a death."""

import json

import pytest
import torch
from tests.training.conftest import PROJECT, Project

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

FIT = """
    def fit(run: "ps.Run", config: Config) -> None:
        import torch
        import torch.nn.functional as F
        from penstock.checkpoints import is_distributed, weights_digest

        config = json.loads(config.asked)
        torch.manual_seed(1)
        net = torch.nn.Sequential(
            torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU()),
            torch.nn.Dropout(config["dropout"]), torch.nn.Linear(16, 2),
        )
        model = run.distribute(net, config["strategy"])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        train = run.data("points:all", batch_size=24, epochs=3)
        run.track(model=model, optimizer=optimizer, train=train)
        mixed, parts, at = run._updates.mixed, [], 0
        for batch in run.steps(
            train, micro_batches=config["parts"], reduction=config["reduction"]
        ):
            step, at = run.global_step + 1, at + 1
            first, last = at == 1, at == config["parts"] // run.world_size
            if step == config["dies_at"] and last and run.rank == 1 and not os.path.exists("died"):
                open("died", "w").close()
                os.kill(os.getpid(), 9)
            with run.autocast("fp16"):
                loss = F.cross_entropy(model(batch["point"]), batch["label"])
            if step == 9 and first and run.rank == run.world_size - 1:
                loss = loss * float("inf")  # one part on one rank overflows
            run.backward(loss)
            taken = run.step(optimizer, clip=0.5)
            parts.append((batch["point"].clone(), batch["label"].clone()))
            if last:
                at = 0
                told = {"step": step, "taken": taken, "scale": mixed.scale}
                with open(f"{run.name}-{run.rank}", "a") as out:
                    print(json.dumps(told), file=out)
        state = {k: v.full_tensor() if is_distributed(v) else v for k, v in
                 model.state_dict().items()}
        plain = {k.removeprefix("module."): v for k, v in state.items()}
        if run.rank == 0:
            torch.save({"parts": parts, "weights": plain}, f"{run.name}.pt")
        with open(f"{run.name}-{run.rank}", "a") as out:
            print(json.dumps({"weights": weights_digest(plain)}), file=out)

    def main() -> None:
        ps.prepare("points", make_points, key="id", splits={"all": 1.0})
        name, workers, asked = sys.argv[1:]
        ps.train(fit, Config(asked=asked), name=name, workers=int(workers), checkpoint_every=3,
                 seed=3, threads=1)

    if __name__ == "__main__":
        ps.main(main)
    """
SOURCE = (
    PROJECT[: PROJECT.index("    def fit")]
    .replace("import sys\n", "import json\n    import os\n    import sys\n", 1)
    .replace("epochs: int = 10", 'asked: str = ""', 1)
    + FIT
)
STEPS = 24
MICRO = {"parts": 4, "reduction": "mean", "strategy": "ddp", "dies_at": 0, "dropout": 0.2}


@pytest.fixture
def half(tmp_path):
    project = Project(tmp_path / "project", SOURCE)
    yield project
    project.close()


def run(project, name, workers, **changes):
    project.run(name, str(workers), json.dumps({**MICRO, **changes}))


def told(project, name, rank=0):
    """(step -> (taken, scale) as it was told last, digest of the weights) of one rank."""
    lines = (project.folder / f"{name}-{rank}").read_text().splitlines()
    *steps, end = map(json.loads, lines)
    return {each["step"]: (each["taken"], each["scale"]) for each in steps}, end["weights"]


def reference(parts, each):
    """torch's own way with the same parts: (verdicts, weights)."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU()),
        torch.nn.Dropout(0.0),
        torch.nn.Linear(16, 2),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu")
    verdicts = {}
    for number, (point, label) in enumerate(parts):
        step, at = divmod(number, each)
        with torch.autocast("cpu", torch.float16):
            loss = torch.nn.functional.cross_entropy(net(point), label)
        if step == 8 and at == 0:
            loss = loss * float("inf")
        scaler.scale(loss / each).backward()
        if at == each - 1:
            before = scaler.get_scale()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            verdicts[step + 1] = (scaler.get_scale() >= before, before)
    return verdicts, net.state_dict()


def test_micro_batches_are_what_torchs_scaler_makes_of_them(half):
    run(half, "own", 0, dropout=0.0)
    found = torch.load(half.folder / "own.pt")
    verdicts, weights = reference(found["parts"], 4)
    steps, _ = told(half, "own")
    assert steps == verdicts
    taken = [step for step, (good, _) in steps.items() if good]
    assert len(taken) >= STEPS - 8 and 9 not in taken, "the poisoned one, and those of the start"
    assert all(torch.equal(found["weights"][name], weights[name]) for name in weights)


WAYS = [
    pytest.param("ddp", "mean", id="ddp"),
    pytest.param("ddp", "ordered", id="ordered"),
    pytest.param("fsdp", "mean", id="fsdp"),
]


@pytest.mark.long
@pytest.mark.parametrize(("strategy", "reduction"), WAYS)
def test_two_ranks_have_one_verdict_and_a_death_changes_no_bit(half, strategy, reduction):
    ways = {"strategy": strategy, "reduction": reduction}
    run(half, "calm", 2, **ways)
    run(half, "hurt", 2, **ways, dies_at=11)
    assert (half.folder / "died").exists()
    (first, second), (calm, hurt) = (
        (told(half, "calm", rank) for rank in (0, 1)),
        (told(half, name) for name in ("calm", "hurt")),
    )
    assert first == second, "verdicts, scales and weights are those of both ranks"
    assert hurt == calm == told(half, "hurt", 1)
    steps, weights = calm
    assert len(steps) == STEPS and not steps[9][0], "one part on one rank leaves the step out"
    assert steps[10][1] == steps[9][1] / 2, "the scale is halved once"
    if reduction == "ordered":
        run(half, "alone", 1, **ways)
        assert told(half, "alone")[1] == weights, "at any number of ranks, whose part overflows"
