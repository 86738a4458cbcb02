"""Captured tensors and modules of torch count by their values."""

from __future__ import annotations

import pytest

from penstock.jobs.source import identity

torch = pytest.importorskip("torch")


def make(captured):
    def inner(x):
        return captured, x

    return inner


def weights(n):
    torch.manual_seed(n)
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.LSTM(2, 2))


def trained(n):
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(n)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


def hooked(n):
    model = weights(1)
    model.register_forward_hook(lambda *_: n)
    return model


KINDS = {
    "floats": lambda n: torch.full((2, 3), float(n)),
    "bfloat16": lambda n: torch.full((2,), n, dtype=torch.bfloat16),
    "complex": lambda n: torch.tensor([1 + n * 1j]).conj(),
    "booleans": lambda n: torch.tensor([True, n == 1]),
    "shape": lambda n: torch.zeros([(2, 3), (3, 2)][n - 1]),
    "dtype": lambda n: torch.zeros(2, dtype=[torch.int32, torch.float32][n - 1]),
    "scalar": lambda n: torch.tensor(n),
    "empty": lambda n: torch.zeros(0, n),
    "not contiguous": lambda n: (torch.arange(6).reshape(2, 3) * n).T,
    "sparse": lambda n: torch.tensor([[0, n]]).to_sparse(),
    "needs a gradient": lambda n: torch.zeros(2, requires_grad=n == 1),
    "graph": lambda n: torch.ones(2, requires_grad=True) * n,
    "parameter": lambda n: torch.nn.Parameter(torch.full((2,), float(n))),
    "module": weights,
    "module with a hook": hooked,
    "eval": lambda n: weights(1).train(n == 1),
    "optimizer": trained,
    "generator": lambda n: torch.Generator().manual_seed(n),
    "device": lambda n: torch.device(["cpu", "meta"][n - 1]),
    "the type itself": lambda n: [torch.int8, torch.int16][n - 1],
    "transformer": lambda n: torch.nn.TransformerEncoderLayer(4, n, 8, dropout=0).apply(_zero),
}


def _zero(module):
    for parameter in module.parameters(recurse=False):
        torch.nn.init.zeros_(parameter)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_value_is_seen_and_an_equal_one_is_not(kind):
    one, again, other = (identity(make(KINDS[kind](n))).digest for n in (1, 1, 2))
    assert one == again
    assert one != other


def test_a_method_of_a_module_counts_with_its_weights():
    assert identity(weights(1).forward) == identity(weights(1).forward)
    assert identity(weights(1).forward) != identity(weights(2).forward)
