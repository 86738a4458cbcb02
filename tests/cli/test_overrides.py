"""The command line of a training script: dotted overrides with the types of the config."""

from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from penstock.base.errors import BadInput
from penstock.cli.overrides import parse


@dataclass(frozen=True)
class Model:
    width: int = 64
    kind: Literal["mlp", "cnn"] = "mlp"


@dataclass(frozen=True)
class Config:
    lr: float = 3e-4
    model: Model = field(default_factory=Model)
    layers: list[int] = field(default_factory=list)
    note: str | None = None
    deep: bool = False


class Pydantic(BaseModel):
    lr: float = 3e-4
    deep: bool = False


def fit(run, config):
    """Fit it."""


def config(*arguments, of=Config):
    return parse(fit, of, arguments).config


def test_weights_to_begin_with_are_an_option():
    assert parse(fit, Config, ["--init-from", "base@20"]).options["init_from"] == "base@20"


def test_nothing_said_leaves_the_config_as_it_is():
    assert config() == Config()


def test_values_take_the_types_of_their_fields():
    got = config("lr=1e-3", "layers=[1, 2]", "deep=true", "note=12")
    assert got == Config(lr=1e-3, layers=[1, 2], deep=True, note="12")


def test_dots_go_into_nested_configs():
    assert config("model.width=7", "model.kind=cnn") == Config(model=Model(7, "cnn"))


def test_what_was_given_is_not_changed():
    mine = Config()
    assert config("lr=1", of=mine).lr == 1.0
    assert mine == Config()


def test_a_dict_and_a_pydantic_model_are_configs_too():
    assert config("lr=1e-3", "m.n=2", of={"lr": 0.1, "m": {"n": 1}}) == {"lr": 1e-3, "m": {"n": 2}}
    assert config("lr=1e-3", "deep=yes", of=Pydantic) == Pydantic(lr=1e-3, deep=True)


@given(st.floats(allow_nan=False), st.integers(), st.text())
def test_every_value_comes_through(lr, width, note):
    got = config(f"lr={lr!r}", f"model.width={width}", f"note={note}")
    assert (got.lr, got.model.width, got.note) == (lr, width, note)


@pytest.mark.parametrize(
    ("argument", "what", "fix"),
    [
        ("lrr=1", 'no "lrr"', '"lr"'),
        ("model.wdth=1", 'no "model.wdth"', '"width"'),
        ("lr=fast", 'lr="fast" does not fit', "float"),
        ("model.kind=rnn", "does not fit", "model.kind"),
        ("lr.x=1", "no fields", "dataclass"),
        ("quick", "neither an option nor KEY=VALUE", "lr=1e-3"),
        ("--wokers=2", "--wokers", "--workers"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_error(argument, what, fix):
    with pytest.raises(BadInput) as caught:
        config(argument)
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_options_are_only_those_that_were_said():
    assert parse(fit, Config, ["--name", "base"]).options == {"name": "base"}
    got = parse(fit, Config, ["--workers", "2", "lr=1", "--detach", "--name=b", "--on-change=fork"])
    assert got.options == {"name": "b", "workers": 2, "detach": True, "on_change": "fork"}


def test_a_config_that_needs_arguments_is_named():
    @dataclass
    class Needs:
        lr: float

    with pytest.raises(BadInput, match=r"Needs\(\) cannot be made"):
        config(of=Needs)
