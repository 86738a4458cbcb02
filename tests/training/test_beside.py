"""Checkpoints that are copied beside the step: none mixes two steps, whatever the timing.

Every element of every tensor is the number of the step that wrote it last.
"""

import random
import threading
import time
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from tests.training.conftest import SEED, until

import penstock.checkpoints as ck
from penstock.blobs import open_blobs
from penstock.jobs.link import Buffer
from penstock.jobs.pulse import Pulse
from penstock.training.copier import Warming
from penstock.training.saving import Saver

pytestmark = pytest.mark.torch


class Bystander:
    """A link whose sidecar persists at once, in the thread that hands over."""

    rank, world_size, beside = 0, 1, True

    def __init__(self) -> None:
        self.pulse = Pulse()
        self.blobs = open_blobs("memory://")
        self.states: dict[int, Any] = {}
        self.told: list[tuple[str, Any]] = []
        self.threads: set[str] = set()
        self._made: dict[str, Buffer] = {}
        self.asked = 0

    def buffers(self, size: int, least: int, count: int) -> list[Buffer]:
        self.asked += 1
        made = [Buffer(f"slot-{n}", memoryview(bytearray(b"\xee" * size))) for n in range(count)]
        self._made = {buffer.slot: buffer for buffer in made}
        return made

    def wait_free(self, buffers: list[Buffer]) -> Buffer:
        return next(buffer for buffer in buffers if buffer.free)

    def find_free(self, buffers: list[Buffer]) -> Buffer | None:
        return self.wait_free(buffers)

    def settle(self, buffers: list[Buffer]) -> None:
        """Nothing is under way."""

    def hand(self, _: str, buffer: Buffer, step: int, message: dict[str, Any]) -> None:
        body = {"slot": buffer.slot, "step": step, "rank": 0, "index": message["index"]}
        part = ck.handle(body, {buffer.slot: buffer.view}, self.blobs)["part"]
        data, _refs = ck.assemble("run-a", step, 1, 1, [part], {})
        self.states[step] = ck.load(self.blobs, ck.parse_manifest(data), 0, 1).shared
        self.threads.add(threading.current_thread().name)
        buffer.free = True

    def tell(self, kind: str, payload: dict[str, Any]) -> None:
        self.told.append((kind, payload))

    def save_at(self) -> int:
        return 0


class Tagging(torch.optim.Optimizer):
    """Writes the step's number into its parameters and into as large a state."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.0})

    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            for group in self.param_groups:
                group["lr"] += 1.0
                for each in group["params"]:
                    moment = self.state[each].setdefault("moment", torch.zeros_like(each))
                    moment.fill_(group["lr"])
                    each.fill_(group["lr"])


class Model(torch.nn.Module):
    """large  three tensors that take a while to copy; seen: a buffer that the forward writes"""

    def __init__(self) -> None:
        super().__init__()
        sizes = (700_000, 10, 300_000)
        self.large = torch.nn.ParameterList(torch.zeros(size) for size in sizes)
        self.register_buffer("seen", torch.zeros(50_000))


class Loop:
    """Two models with an optimiser each, an average of one of them in none, and a saver."""

    def __init__(self, every: int = 1) -> None:
        self.link = Bystander()
        self.saver = Saver(self.link, every, "off", nullcontext)
        self.models = {"first": Model(), "second": Model()}
        self.average = Model()
        self.optimizers = {name: Tagging(model.large) for name, model in self.models.items()}
        self.dice = random.Random(SEED)
        self.step = 0

    def run(self, steps: int, body: Any = lambda step: None) -> None:
        self.saver.begin(self.optimizers.values())
        for _ in range(steps):
            self.one_step(body)
        self.saver.end()

    def one_step(self, body: Any) -> None:
        step = self.step + 1
        with torch.no_grad():
            for model in (*self.models.values(), self.average):
                model.seen.fill_(step)  # what a forward does
            self.pause()
            body(step)
            self.saver.poll()
            for optimizer in self.optimizers.values():
                optimizer.step()
                self.pause()
            for parameter in self.average.large:
                parameter.fill_(step)
        self.step = step
        if self.saver.due(step):
            self.save()

    def shared(self) -> dict[str, Any]:
        objects: dict[str, Any] = {**self.models, "average": self.average}
        objects |= {f"of {name}": each for name, each in self.optimizers.items()}
        return {name: each.state_dict() for name, each in objects.items()}

    def save(self, at_once: bool = False) -> None:
        self.saver.save(self.step, self.shared(), {}, {}, at_once=at_once)

    def pause(self) -> None:
        time.sleep(self.dice.choice([0, 0, 1e-5, 1e-3, 5e-3]))

    def is_of_one_step(self, step: int) -> bool:
        def tags(tree: Any) -> set[float]:
            if isinstance(tree, torch.Tensor):
                return {float(tree.min()), float(tree.max())}
            return set().union(*map(tags, tree.values())) if isinstance(tree, dict) else set()

        state = self.link.states[step]
        rates = {state[f"of {name}"]["param_groups"][0]["lr"] for name in self.optimizers}
        return tags(state) | rates == {float(step)}


def test_no_checkpoint_mixes_two_steps_whatever_the_timing() -> None:
    loop = Loop()
    loop.run(25)
    assert list(loop.link.states) == list(range(1, 26)), SEED
    assert all(loop.is_of_one_step(step) for step in loop.link.states), SEED
    assert loop.link.threads == {"checkpoint-copy"}
    assert not loop.link.told


def test_a_parameter_changed_in_the_body_of_the_loop_is_found_and_the_next_step_is_saved() -> None:
    loop = Loop(every=4)
    changed = loop.models["second"].large

    def body(step: int) -> None:
        if step == 9:  # after the save of step 8
            changed[0].mul_(2.0)

    loop.run(16, body)
    assert list(loop.link.states) == [4, 9, 12, 16], SEED
    assert all(loop.is_of_one_step(step) for step in loop.link.states), SEED
    told = {"step": 8, "tensor": "shared.second.large.0", "again": True}
    assert loop.link.told == [("torn", told)]


def test_state_that_is_loaded_in_the_body_of_the_loop_is_noticed() -> None:
    loop = Loop(every=3)
    other = Model().state_dict()

    def body(step: int) -> None:
        if step == 4:
            loop.models["first"].load_state_dict({**other, "seen": torch.full((50_000,), 4.0)})

    loop.run(6, body)
    assert list(loop.link.states) == [4, 6]
    assert all(loop.is_of_one_step(step) for step in loop.link.states)


def test_a_step_that_never_ends_does_not_keep_the_last_checkpoint_from_the_disk() -> None:
    loop = Loop(every=1)

    def body(step: int) -> None:
        if step == 3:
            until("the checkpoint of step 2", lambda: 2 in loop.link.states)
            assert loop.is_of_one_step(2)

    loop.run(3, body)
    assert list(loop.link.states) == [1, 2, 3]


def test_a_long_step_that_changed_something_is_found_all_the_same() -> None:
    """Without that torch counts it: the comparison with the state tells."""
    loop = Loop(every=2)

    def body(step: int) -> None:
        if step == 3:
            loop.saver._job.copy.release()
            loop.models["first"].large[0].data.zero_()
            time.sleep(1.5)
            assert 2 not in loop.link.states
            loop.models["first"].large[0].data.fill_(2.0)

    loop.run(4, body)
    assert loop.is_of_one_step(2) and loop.is_of_one_step(4)


def test_what_must_be_exactly_this_step_is_copied_at_once() -> None:
    loop = Loop(every=100)
    loop.saver.begin(loop.optimizers.values())
    for _ in range(3):
        loop.one_step(lambda step: None)
    loop.save(at_once=True)
    assert loop.saver.saved(3) and list(loop.link.states) == [3]
    loop.saver.end()
    assert loop.link.threads == {"MainThread"}


def test_a_loop_that_is_left_leaves_no_thread_and_no_hook() -> None:
    loop = Loop()
    loop.run(2)
    assert "checkpoint-copy" not in {thread.name for thread in threading.enumerate()}
    for optimizer in loop.optimizers.values():
        assert not optimizer._optimizer_step_pre_hooks


def test_what_goes_wrong_while_handing_over_is_raised_in_the_loop() -> None:
    loop = Loop()

    def broken(*_: Any) -> None:
        raise ConnectionError("nobody is there")

    loop.link.hand = broken
    with pytest.raises(ConnectionError, match="nobody is there"):
        loop.run(3)


def test_memory_is_there_before_the_first_copy() -> None:
    loop = Loop(every=3)
    loop.run(1)
    loop.saver.prepare(loop.shared(), {})
    assert loop.link.asked == 1
    loop.run(5)
    assert loop.link.asked == 1 and sorted(loop.link.states) == [3, 6]
    assert all(loop.is_of_one_step(step) for step in (3, 6))


def test_warming_touches_all_pages_changes_none_and_makes_way() -> None:
    views = [memoryview(bytearray(b"\xee" * size)) for size in (9 << 20, 5000)]
    warming = Warming(views)
    warming.carry_out(hurry=lambda: False)
    assert warming.touched == (9 << 20) + 5000
    assert all(set(bytes(view)) == {0xEE} for view in views)
    hurried = Warming(views)
    hurried.carry_out(hurry=lambda: hurried.touched >= 4 << 20)
    assert hurried.touched == 4 << 20
