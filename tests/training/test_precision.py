"""The scale of the loss: what it does to gradients, when it moves, and whose fault a NaN is."""

import pytest
import torch

from penstock.base.errors import BadInput
from penstock.training.precision import Mixed

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
GOOD, BAD = 1.0, float("inf")


@pytest.fixture
def mixed():
    made = Mixed()
    made.autocast("fp16", CPU)
    return made


def step(mixed, *norms):
    found = [mixed.overflows(norm) for norm in norms]
    mixed.end_step()
    return found


def test_the_gradient_is_what_it_is_without_a_scale(mixed):
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    mixed.scaled((weight**2).sum()).backward()
    assert weight.grad.tolist() == [2.0 * 2**16, -4.0 * 2**16]
    mixed.unscale_([weight.grad])
    assert weight.grad.tolist() == [2.0, -4.0]


def test_without_fp16_nothing_is_scaled_and_nothing_is_excused():
    mixed = Mixed()
    loss = torch.tensor(3.0)
    with mixed.autocast("bf16", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with mixed.autocast("fp32", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert mixed.scaled(loss) is loss and not mixed.overflows(BAD)
    assert mixed.end_step() is None and mixed.state() == {"scale": None, "steady": 0}
    with pytest.raises(BadInput, match="fp8"):
        mixed.autocast("fp8", CPU)


def test_a_step_that_overflows_halves_the_scale_once_for_all_optimisers(mixed):
    assert step(mixed, BAD, GOOD, BAD) == [True, False, True]
    assert mixed.scale == 2**15
    assert mixed.end_step() is None, "a step in which no optimiser acted"


def test_the_scale_is_doubled_after_2000_steady_steps(mixed):
    step(mixed, BAD)
    for _ in range(1999):
        step(mixed, GOOD)
    assert mixed.scale == 2**15
    step(mixed, GOOD)
    assert mixed.scale == 2**16


def test_a_gradient_that_no_scale_can_mend_is_not_excused(mixed):
    for _ in range(16):
        assert step(mixed, BAD) == [True]
    assert mixed.scale == 1.0 and step(mixed, BAD) == [False]


def test_another_attempt_goes_on_with_the_scale(mixed):
    step(mixed, BAD)
    step(mixed, GOOD)
    other = Mixed()
    other.load(mixed.state())
    other.autocast("fp16", CPU)
    assert other.state() == {"scale": 2.0**15, "steady": 1}
    other.load(None)
    assert other.scale == 2**15
