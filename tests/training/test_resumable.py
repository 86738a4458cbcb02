"""A DataLoader whose position is kept: stop anywhere, and the next batch is the next one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from penstock.base.errors import Damaged
from penstock.training.callbacks.loader import Resumable


class Noisy(Dataset[torch.Tensor]):
    """Samples that draw random numbers when they are read."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return index + torch.rand(())


def loader(own: bool, count: int = 13) -> Resumable:
    generator = torch.Generator().manual_seed(5) if own else None
    return Resumable(DataLoader(Noisy(count), batch_size=3, shuffle=True, generator=generator))


def train(batches: Any) -> list[list[float]]:
    """Each step draws as well, as dropout does."""
    return [[*batch.tolist(), float(torch.rand(()))] for batch in batches]


@pytest.mark.parametrize("own", [False, True], ids=["the global generator", "one of its own"])
@pytest.mark.parametrize("stop", range(11))
def test_a_resumed_loader_goes_on_exactly(own: bool, stop: int) -> None:
    torch.manual_seed(3)
    first = loader(own)
    kept: list[dict[str, Any]] = []
    seen = 0

    def keep() -> None:
        if seen == stop:
            kept.append(first.state_dict())

    first.before_next = keep
    whole = []
    for _ in range(2):
        for batch in first:
            seen += 1
            whole.append([*batch.tolist(), float(torch.rand(()))])
    for state in kept:  # at the end of an epoch there are two: before its end, and after it
        torch.manual_seed(99)  # another process, which drew other numbers
        second = loader(own)
        second.load_state_dict(state)
        assert second.state_dict() is state  # what was not begun again is kept as it was
        rest: list[list[float]] = []
        while len(rest) < len(whole) - stop:
            rest += train(second)
        assert rest == whole[stop:]


def test_an_epoch_that_has_become_shorter_is_said() -> None:
    torch.manual_seed(3)
    first = loader(False)
    batches = iter(first)
    for _ in range(4):
        next(batches)
    second = loader(False, count=6)
    second.load_state_dict(first.state_dict())
    with pytest.raises(Damaged, match="had 4 batches or more, and has 2 now"):
        next(iter(second))


def test_all_else_of_the_loader_stays_as_it_is() -> None:
    made = loader(False)
    assert len(made) == 5 and made.batch_size == 3 and len(made.dataset) == 13
