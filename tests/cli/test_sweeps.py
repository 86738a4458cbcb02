"""`--sweep` on the command line of a training script."""

from dataclasses import dataclass, field

import pytest

from penstock.base.errors import BadInput
from penstock.cli.overrides import parse
from penstock.training.tuning.space import Choice, Integers, Uniform


@dataclass
class Model:
    width: int = 64


@dataclass
class Config:
    lr: float = 3e-4
    epochs: int = 3
    kind: str = "mlp"
    layers: list[int] = field(default_factory=list)
    deep: bool = False
    model: Model = field(default_factory=Model)


def fit(run, config):
    """Fit it."""


def swept(*arguments):
    return parse(fit, Config, ["--name", "base", *arguments])


def test_values_make_a_grid_of_the_fields_types():
    found = swept("epochs=5", "--sweep", "lr=1e-4,1e-3", "model.width=32,64", "--parallel", "2")
    assert found.config == Config(epochs=5)
    assert found.space == {"lr": Choice((1e-4, 1e-3)), "model.width": Choice((32, 64))}
    assert found.options == {"name": "base", "sampler": "grid", "parallel": 2}


def test_commas_within_brackets_and_quotes_belong_to_a_value():
    found = swept("--sweep", "layers=[8,8],[16]", "kind=mlp,cnn", "deep=true,false")
    assert found.space == {
        "layers": Choice(([8, 8], [16])),
        "kind": Choice(("mlp", "cnn")),
        "deep": Choice((True, False)),
    }


def test_intervals_make_a_search():
    found = swept(
        "--sweep", "lr=1e-4:1e-2:log", "model.width=16:64:16", "epochs=1:9",
        "--trials", "20", "--maximize", "val/accuracy", "--pruner", "median",
    )  # fmt: skip
    assert found.space == {
        "lr": Uniform(1e-4, 1e-2, log=True),
        "model.width": Integers(16, 64, 16),
        "epochs": Integers(1, 9),
    }
    assert found.options == {
        "name": "base", "sampler": "tpe", "trials": 20, "pruner": "median",
        "metric": "val/accuracy", "direction": "maximize",
    }  # fmt: skip


def test_without_a_sweep_nothing_is_searched():
    assert swept("lr=1e-3").space is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sweep", "lr"], "says nothing that varies"),
        (["--sweep", "rl=1,2"], 'no "rl"'),
        (["--sweep", "lr=fast,slow"], "does not fit"),
        (["--sweep", "lr=0.1:0.2:0.01"], "no whole number"),
        (["--sweep", "lr=0:1:log"], "no logarithm"),
        (["--sweep", "model.width=64,64"], "no list of different values"),
        (["--sweep", "lr=1,2", "--detach"], "--detach does not go with --sweep"),
        (["--sweep", "lr=1,2", "--init-from", "base"], "--init-from does not go"),
        (["--trials", "3"], "--trials is for a sweep"),
        (["--sweep", "lr=1,2", "--minimize", "a", "--maximize", "b"], "does not hold"),
    ],
)
def test_what_cannot_be_swept_is_one_clear_error(arguments, says):
    with pytest.raises(BadInput, match=says):
        swept(*arguments)
