"""A copy that is made beside what goes on has the same bytes, and knows when it is of no use."""

from __future__ import annotations

import threading

import pytest
import torch

import penstock.checkpoints as ck
from penstock.base.errors import BadInput
from penstock.checkpoints.copying import TURN


def tree(fill: float = 1.0) -> dict[str, torch.Tensor]:
    """Small tensors, one larger than several turns, one that is not contiguous, an empty one."""
    shapes = {"a": (3,), "large": (3 * TURN // 4 + 17, 5), "b": (1000,), "empty": (0, 4), "c": (7,)}
    found = {name: torch.full(shape, fill) for name, shape in shapes.items()}
    found["last"] = torch.full((2, 4, 8, 8), fill).to(memory_format=torch.channels_last)
    return found


def everything(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor)


@pytest.fixture
def planned() -> ck.Plan:
    return ck.plan(tree(), {"n": torch.arange(5), "text": "x" * 400}, 0, 1)


def test_taken_in_turns_by_several_threads_the_bytes_are_the_same(planned: ck.Plan, fill) -> None:
    buffer = memoryview(bytearray(b"\xee" * planned.nbytes))
    copy = ck.Copy(planned, buffer, later=everything)
    copy.now()
    assert not copy.released
    taken = []

    def help_out() -> None:
        while copy.take_turn():
            taken.append(threading.get_ident())

    helpers = [threading.Thread(target=help_out) for _ in range(3)]
    for helper in helpers:
        helper.start()
    copy.release()
    assert copy.released
    for helper in helpers:
        helper.join()
    assert bytes(buffer) == bytes(fill(planned))
    assert copy.changed() is None


def test_what_is_left_for_later_is_not_read_by_now(planned: ck.Plan) -> None:
    state = tree()
    later = {id(state["large"])}
    plan = ck.plan(state, {}, 0, 1)
    buffer = memoryview(bytearray(plan.nbytes))
    copy = ck.Copy(plan, buffer, later=lambda leaf: id(leaf) in later)
    copy.now()
    copied = sum(1 for byte in bytes(buffer) if byte)
    assert 0 < copied < state["b"].nbytes * 2
    copy.release()
    assert sum(1 for byte in bytes(buffer) if byte) > state["large"].nbytes // 3


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.add_(1),
        lambda tensor: tensor[0].fill_(2),
        lambda tensor: torch.nn.init.zeros_(tensor),
        lambda tensor: torch._foreach_mul_([tensor], 2.0),
    ],
)
def test_a_tensor_that_changed_is_named(change) -> None:
    state = tree()
    plan = ck.plan(state, {}, 0, 1)
    copy = ck.Copy(plan, memoryview(bytearray(plan.nbytes)), later=everything)
    copy.now()
    with torch.no_grad():
        change(state["large"])
    copy.release()
    assert copy.changed() == "shared.large"


def test_a_parameter_behind_a_detached_alias_counts_too() -> None:
    model = torch.nn.Linear(3, 3)
    plan = ck.plan(model.state_dict(), {}, 0, 1)
    copy = ck.Copy(plan, memoryview(bytearray(plan.nbytes)), later=everything)
    copy.now()
    with torch.no_grad():
        model.bias.clamp_(max=0.0)
    copy.release()
    assert copy.changed() == "shared.bias"


def test_a_buffer_that_is_too_short_is_refused(planned: ck.Plan) -> None:
    with pytest.raises(BadInput, match="cannot take"):
        ck.Copy(planned, memoryview(bytearray(planned.nbytes - 1)))


def test_a_turn_that_fails_lets_nobody_wait_for_ever(planned: ck.Plan) -> None:
    copy = ck.Copy(planned, memoryview(bytearray(planned.nbytes)), later=everything)
    copy.now()
    copy._target = None
    copy._turns.appendleft(lambda: 1 / 0)
    copy._open += 1
    with pytest.raises(ZeroDivisionError):
        copy.take_turn()
    copy.release()
    assert copy.released
