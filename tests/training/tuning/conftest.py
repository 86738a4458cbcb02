"""A training that needs no data and few seconds: its loss follows from the config alone."""

import pytest

PROJECT = """
    import sys
    import time
    from dataclasses import dataclass, field

    import penstock as ps

    @dataclass
    class Model:
        width: int = 8

    @dataclass
    class Config:
        lr: float = 0.1
        steps: int = 20
        pause: float = 0.0
        model: Model = field(default_factory=Model)

    def fit(run: "ps.Run", config: Config) -> None:
        import torch

        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(config.steps):
            loss = model(torch.ones(1, 2)).sum() * 0 + abs(config.lr - 0.3) + 1 / (step + 1)
            run.backward(loss)
            run.step(optimizer)
            run.log({"loss": loss})
            time.sleep(config.pause)

    def main() -> None:
        arguments = dict(each.split("=") for each in sys.argv[1:])
        tuned = ps.tune(
            fit, {"lr": ps.space.uniform(0.01, 1.0)}, Config(),
            metric="loss", direction="minimize", name="search", threads=1,
            trials=int(arguments.pop("trials", 3)), parallel=int(arguments.pop("parallel", 1)),
            sampler=arguments.pop("sampler", "random"), checkpoint_every=5, **arguments,
        )
        print("BEST", tuned.best_run, tuned.best_value, tuned.best_params["lr"], flush=True)

    if __name__ == "__main__":
        ps.main(main)
    """


@pytest.fixture
def searching(made):
    """A project that searches: `trials=4 parallel=2` on its command line."""
    return made(source=PROJECT)
