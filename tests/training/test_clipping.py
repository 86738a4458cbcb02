"""Norm and clipping: what torch's own do, bit for bit."""

import pytest
import torch
from tests.training.conftest import SEED

from penstock.training.clipping import clip_, norm_of

pytestmark = pytest.mark.torch


def gradients(scale: float, dtype: torch.dtype, generator: torch.Generator) -> list[torch.Tensor]:
    shapes = [(5,), (3, 4), (), (64, 3)]
    return [scale * torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clipping_is_torchs_own_bit_for_bit(dtype):
    generator = torch.Generator().manual_seed(SEED)
    clipped = 0
    for number in range(300):
        scale = 10.0 ** float(torch.empty(1).uniform_(-6, 6, generator=generator))
        clip = 10.0 ** float(torch.empty(1).uniform_(-3, 3, generator=generator))
        mine = gradients(scale, dtype, generator)
        theirs = [torch.nn.Parameter(each.clone()) for each in mine]
        for parameter in theirs:
            parameter.grad = parameter.detach().clone()
        expected = torch.nn.utils.clip_grad_norm_(theirs, clip)
        norm = norm_of(mine, 1, differ=False)
        assert torch.equal(norm, expected), number
        clip_(mine, float(norm), clip, norm.dtype)
        assert all(torch.equal(a, b.grad) for a, b in zip(mine, theirs, strict=True)), number
        clipped += float(norm) > clip
    assert 50 < clipped < 250  # both sides were seen


def test_a_norm_within_the_limit_costs_no_write_to_the_gradients():
    found = gradients(1e-3, torch.float32, torch.Generator().manual_seed(SEED))
    before = [each._version for each in found]
    clip_(found, float(norm_of(found, 1, differ=False)), 1.0, torch.float32)
    assert [each._version for each in found] == before


def test_gradients_of_several_kinds_and_of_none():
    mixed = [torch.full((2,), 3.0), torch.full((4,), 2.0, dtype=torch.float64)]
    assert float(norm_of(mixed, 1, differ=False)) == pytest.approx((2 * 9 + 4 * 4) ** 0.5)
    assert float(norm_of([], 1, differ=False)) == 0.0
