"""Configs of OmegaConf: taken wherever a dataclass or dict is, with interpolations resolved."""

import subprocess
import sys
from dataclasses import dataclass, field
from enum import Enum

import pytest
from omegaconf import OmegaConf

from penstock.base.errors import BadInput, CannotTravel
from penstock.cli.overrides import parse
from penstock.training import configuring
from penstock.training.overriding import applied, put


class Colour(Enum):
    RED = 1


@dataclass
class Model:
    width: int = 8
    height: int = 4


@dataclass
class Schema:
    lr: float = 0.1
    model: Model = field(default_factory=Model)
    layers: list[int] = field(default_factory=lambda: [1, 2])


def given():
    return OmegaConf.create(
        {"lr": 0.1, "model": {"width": 8, "height": "${.width}"}, "warm": ["${lr}", 2]}
    )


RESOLVED = {"lr": 0.1, "model": {"width": 8, "height": 8}, "warm": [0.1, 2]}


def test_it_travels_as_plain_values_and_arrives_as_a_dictconfig():
    packed = configuring.pack(given())
    assert packed == {"type": "omegaconf:DictConfig", "value": RESOLVED}
    arrived = configuring.unpack(packed)
    assert (arrived.model.height, arrived["lr"]) == (8, 0.1)
    assert configuring.pack(arrived) == packed


def test_a_structured_one_and_one_within_others_travel_too():
    assert configuring.pack(OmegaConf.structured(Schema))["value"] == {
        "lr": 0.1, "model": {"width": 8, "height": 4}, "layers": [1, 2],
    }  # fmt: skip
    assert configuring.values({"inner": given().model}) == {"inner": {"width": 8, "height": 8}}


@pytest.mark.parametrize(
    ("config", "path", "says"),
    [
        ({"a": {"b": "???"}}, "config.a.b", "must be given a value"),
        ({"a": {"b": "${nowhere}"}}, "config.a.b", "cannot be resolved"),
        ({"a": {"b": Colour.RED}}, "config.a.b", "is a Colour, which cannot be kept"),
        ({"a": [1, b"bytes"]}, "config.a[1]", "is a bytes, which cannot be kept"),
        ({"a": float("nan")}, "config.a", "JSON has no form for"),
    ],
)
def test_what_cannot_be_kept_is_one_error_with_its_path(config, path, says):
    with pytest.raises(CannotTravel) as found:
        configuring.pack(OmegaConf.create(config))
    assert found.value.what.startswith(path)
    assert says in found.value.what


def test_a_list_is_no_config():
    with pytest.raises(CannotTravel, match="a config of type ListConfig cannot be kept"):
        configuring.pack(OmegaConf.create([1, 2]))


def test_overrides_go_into_it_with_the_types_that_are_there_and_leave_it_alone():
    config = given()
    changed = applied(config, ["lr=1e-3", "model.width=16", "warm=[1,2]"])
    assert OmegaConf.to_container(changed, resolve=True) == {
        "lr": 1e-3, "model": {"width": 16, "height": 16}, "warm": [1, 2],
    }  # fmt: skip
    assert OmegaConf.to_container(config, resolve=True) == RESOLVED
    assert put(config, "model.height", 3).model.height == 3
    with pytest.raises(BadInput, match=r'no "modl\.width"') as found:
        applied(config, ["modl.width=1"])
    assert '"model"' in found.value.fix
    with pytest.raises(BadInput, match="does not fit"):
        applied(config, ["model.width=wide"])


def test_a_missing_value_can_be_given_on_the_command_line():
    config = parse(lambda run, config: None, OmegaConf.create({"lr": "???"}), ["lr=0.5"]).config
    assert configuring.values(config) == {"lr": "0.5"}, "nothing says that it is a number"
    typed = OmegaConf.merge(OmegaConf.structured(Schema), {"lr": "???"})
    assert configuring.values(applied(typed, ["lr=0.5"]))["lr"] == 0.5


def test_a_frozen_one_can_be_overridden():
    config = given()
    OmegaConf.set_readonly(config, True)
    assert applied(config, ["lr=1.0"]).lr == 1.0


def test_without_one_omegaconf_is_not_imported():
    code = (
        "import sys; from penstock.training import configuring; configuring.pack({'lr': 1}); "
        "print('omegaconf' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.torch
def test_a_run_gets_it_and_its_changes_are_told(made):
    project = made()
    project.edit(
        ("from dataclasses import dataclass", "from omegaconf import OmegaConf"),
        ("@dataclass\nclass Config:\n    pause: float = 0.01\n    epochs: int = 10",
         'CONFIG = OmegaConf.create({"pause": 0.0, "epochs": 2, "half": "${epochs}"})'),
        ("config: Config", "config"),
        ("fit, Config(),", "fit, CONFIG,"),
        ("    model = run.distribute", "    assert config.half == 2\n    model = run.distribute"),
    )  # fmt: skip
    project.run("run", "1")
    assert project.newest("run").step == 16
    project.edit(
        ("config.half == 2", "config.half == config.epochs"), ('"epochs": 2', '"epochs": 3')
    )
    out = project.run("run", "1")
    assert "changed: config.value.epochs: 2 -> 3" in out
    assert "changed: config.value.half: 2 -> 3" in out
