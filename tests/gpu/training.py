"""A training on either device whose every part is a switch, and what is read off it.

It draws its batches, and dropout, from the device's own generator; sums with `index_add`, which on
GPUs adds in the order of chance unless deterministic algorithms are asked for; and leaves what it
found in NAME.json.
"""

import json
import time
from typing import Any

import pytest
from tests.training.conftest import Project

from penstock.home.local import LocalHome

SOURCE = """
import contextlib, hashlib, json, os, sys, time
from pathlib import Path

import penstock as ps


def net(width, layers):
    import torch

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.drop = torch.nn.Linear(width, width), torch.nn.Dropout(0.1)

        def forward(self, rows):
            return rows + self.drop(torch.nn.functional.gelu(self.wide(rows)))

    return torch.nn.Sequential(*(Block() for _ in range(layers)))


def digest(model):
    found = hashlib.sha256()
    for parameter in model.parameters():
        found.update(parameter.detach().cpu().numpy().tobytes())
    return found.hexdigest()


def fit(run, config):
    import torch
    import torch.distributed as dist

    device = torch.device(config["share"] or run.device)
    torch.use_deterministic_algorithms(config["exact"])
    inner = net(config["width"], config["layers"])
    if config["share"]:
        model = run.distribute(inner, "plain").to(device)
    else:
        model = run.distribute(inner)
    if config["ddp"]:
        model = torch.nn.parallel.DistributedDataParallel(
            model, device_ids=[device.index or 0] if device.type == "cuda" else None
        )
    if config["compile"]:
        model = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    run.track(model=model, optimizer=optimizer)
    if config["flops"]:
        run.flops(config["flops"], dtype=config["dtype"])
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    rows, classes = config["rows"], 16
    began = None
    for _ in run.steps(config["steps"]):
        if run.global_step == config["steps"] // 4:
            wait()
            began = time.perf_counter()
        batch = torch.randn(rows, config["width"], device=device)
        label = torch.randint(classes, (rows,), device=device)
        with run.autocast(config["precision"]):
            out = model(batch)
        sums = torch.zeros(classes, config["width"], device=device)
        loss = (sums.index_add(0, label, out.float()) / rows).square().mean() + out.square().mean()
        run.backward(loss)
        run.step(optimizer, clip=1.0)
        run.log({"train/loss": loss})
        time.sleep(config["pause"])
    wait()
    seconds = None if began is None else time.perf_counter() - began
    from torch._dynamo.utils import counters

    found = {
        "weights": digest(inner),
        "device": str(device),
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "step": seconds and seconds / (config["steps"] - config["steps"] // 4),
        "compiled": {key: counters["inductor"].get(f"fxgraph_cache_{key}", 0)
                     for key in ("hit", "miss")},
        "memory": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        "backend": dist.group.WORLD._get_backend(device).name(),
    }
    Path(f"{run.name}-{run.rank}.json").write_text(json.dumps(found))


def main():
    asked = json.loads(sys.argv[1])
    config = asked.pop("config")
    ps.train(fit, config, seed=3, **asked)


if __name__ == "__main__":
    ps.main(main)
"""

SMALL: dict[str, Any] = {"width": 64, "layers": 2, "rows": 32, "steps": 40, "pause": 0.02}
LARGE: dict[str, Any] = {"width": 1024, "layers": 8, "rows": 8192, "steps": 200, "pause": 0.01}
_DEFAULTS: dict[str, Any] = {
    "precision": "fp32", "exact": True, "compile": False, "ddp": False, "share": "", "flops": 0,
    "dtype": None,
}  # fmt: skip


def on(cpu: Any = ()) -> Any:
    """A test runs on both devices. cpu: marks of the CPU's, "long" where it takes long."""
    both = [pytest.param("cpu", marks=cpu), pytest.param("cuda", marks=pytest.mark.gpu)]
    return pytest.mark.parametrize("device", both, indirect=True)


def settings(device: str) -> dict[str, Any]:
    """Of the project: a state in memory every ten steps, so that a death costs few of them."""
    own = {"peak_flops": 1e12} if device == "cpu" else {"memory_tier_bytes": 16 << 30}
    return {"checkpoint_memory_every": 10, "keep_checkpoints": 1, **own}


def config_of(device: str, **changes: Any) -> dict[str, Any]:
    return {**_DEFAULTS, **(SMALL if device == "cpu" else LARGE), **changes}


def asked(on_device: str, name: str, config: dict[str, Any], **options: Any) -> str:
    """The one argument of the script."""
    options = {"checkpoint_every": 20, "device": on_device, "threads": 1, "workers": 1, **options}
    return json.dumps({"name": name, "config": config, **options})


def found(project: Project, name: str, rank: int = 0) -> dict[str, Any]:
    """What the function left when it was through."""
    read: dict[str, Any] = json.loads((project.folder / f"{name}-{rank}.json").read_text())
    return read


def killed(project: Project, name: str, argument: str, step: int) -> float:
    """Run it, and kill a rank once that step is saved. Returns the seconds from the kill to the
    end of the next attempt's first step."""
    script = project.start(argument)
    project.until(f"step {step}", lambda: project.committed(name) >= step, 120)
    pid, *_ = project.pids(name, "rank")
    at = time.time()
    project.kill(name, only=pid)
    out, _ = script.communicate(timeout=240)
    assert script.returncode == 0, out
    (_, again) = times(project, name, "attempt.stepping")
    return again - at


def times(project: Project, name: str, kind: str) -> list[float]:
    """Wall clock of the events of a kind."""
    run = project.newest(name)
    assert run is not None
    with project.stores() as stores, stores.meta.read() as db:
        events = db.events(subject=f"run/{run.id}", limit=10_000)
    return [event.body.get("at", event.at) for event in events if event.kind == kind]


def series(project: Project, name: str, scalar: str) -> list[tuple[int, float]]:
    """(step, value) of one scalar, over all attempts."""
    found: list[tuple[int, float]] = LocalHome(project.settings).metrics(name, [scalar])[scalar]
    return found
