"""What a step holds is told when it changes, and counting its FLOPs changes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.base.errors import BadInput
from penstock.jobs.pulse import Pulse
from penstock.monitoring import Tracks
from penstock.signals import Emitter

torch = pytest.importorskip("torch")

from penstock.training.accounting import Accounts  # noqa: E402

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


class Heard:
    """An emitter that only remembers."""

    def __init__(self) -> None:
        self.scalar_calls: list[tuple[int, dict[str, float]]] = []

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.scalar_calls.append((step, values))

    def text(self, step: int, name: str, text: str) -> None: ...

    def span(self, name: str, start: float, end: float, step: int) -> None: ...

    def of(self, name: str) -> list[tuple[int, float]]:
        return [(step, values[name]) for step, values in self.scalar_calls if name in values]


def weights(count: bool, heard: Any) -> list[Any]:
    """Three steps of a net with all kinds of randomness, and an evaluation in the first."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 3),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.3),
        torch.nn.BatchNorm1d(24),
        torch.nn.Linear(24, 2),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    accounts = Accounts(heard, Pulse())
    if count:
        accounts.amounts.flops("count", 1, CPU, None)
    batches = [{"x": torch.randn(6, 2, 8)} for _ in range(3)]
    for step, batch in enumerate(accounts.timed(batches, 0)):
        net(batch["x"]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        with accounts.span("penstock/evaluation"), torch.no_grad():
            net(batch["x"])
        accounts.step_done(step + 1)
    accounts.over()
    return [value.clone() for value in net.state_dict().values()]


def test_counting_flops_changes_no_bit_and_leaves_evaluations_out() -> None:
    heard = Heard()
    plain, counted = weights(False, Heard()), weights(True, heard)
    assert all(torch.equal(a, b) for a, b in zip(plain, counted, strict=True))
    convolution = 2 * 6 * 6 * 4 * 2 * 3  # rows, places, channels out and in, kernel
    linear = 2 * 6 * 24 * 2
    # forward, and backward by the weights; of the linear layer also by its input
    assert heard.of("penstock/flops") == [(1, 2 * convolution + 3 * linear)]
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()


def test_a_loop_that_is_left_in_its_first_step_leaves_no_counter_behind() -> None:
    accounts = Accounts(Heard(), Pulse())
    accounts.amounts.flops("count", 1, CPU, None)
    for _ in accounts.timed([1, 2], 0):
        break
    accounts.over()
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()


def test_samples_and_tokens_are_told_when_they_change_and_read_for_every_step(tmp_path: Path):
    emitter = Emitter(tmp_path, "r", 0, 1)
    accounts = Accounts(emitter, Pulse())
    accounts.amounts.tokens = lambda batch: int(batch["n"].sum())
    accounts.amounts.flops(120.0, 4, CPU, "bfloat16")
    batches = [{"n": torch.ones(rows)} for rows in (4, 4, 4, 3)]
    for step, _ in enumerate(accounts.timed(batches, 0)):
        accounts.step_done(step + 1)
    emitter.close()
    told = Tracks(tmp_path).look()[(1, 0)]
    assert list(told.samples) == list(told.tokens) == [4, 4, 4, 3]
    assert list(told.flops) == [30] * 4
    assert (told.device, told.dtype) == ("cpu", "bfloat16")

    heard = Heard()
    accounts = Accounts(heard, Pulse())
    for step, _ in enumerate(accounts.timed(batches, 0)):
        accounts.step_done(step + 1)
    assert heard.of("penstock/samples") == [(1, 4), (4, 3)]


@pytest.mark.parametrize("given", ["many", 0, -1.0, float("nan"), float("inf")])
def test_flops_that_are_no_number_are_refused(given: Any) -> None:
    with pytest.raises(BadInput, match="no number of operations"):
        Accounts(Heard(), Pulse()).amounts.flops(given, 1, CPU, None)
