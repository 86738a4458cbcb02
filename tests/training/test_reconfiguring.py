"""Overrides of a run's config: what needs no import of its class."""

import pytest

from penstock.base.errors import BadInput
from penstock.records import Run
from penstock.training.reconfiguring import reconfigured


def run_with(config):
    return Run("run-1", "base", "train", "finished", {"config": config})


def test_a_dict_is_changed_by_the_types_of_its_values():
    packed = {"type": None, "value": {"lr": 0.1, "model": {"width": 64}}}
    found = reconfigured(None, run_with(packed), ["lr=1e-4", "model.width=8"])
    assert found == {"type": None, "value": {"lr": 1e-4, "model": {"width": 8}}}
    assert packed["value"]["lr"] == 0.1
    with pytest.raises(BadInput, match='Did you mean "width"'):
        reconfigured(None, run_with(packed), ["model.widht=8"])


def test_a_run_without_a_config_takes_no_overrides():
    packed = {"type": None, "value": None}
    assert reconfigured(None, run_with(packed), []) == packed
    with pytest.raises(BadInput, match="has no config, so lr=1 changes nothing"):
        reconfigured(None, run_with(packed), ["lr=1"])
