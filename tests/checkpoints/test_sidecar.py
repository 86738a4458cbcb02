"""What the checkpoint writer answers."""

from __future__ import annotations

import json

import torch

import penstock.checkpoints as ck
from penstock.base.errors import BadInput, from_dict


def test_it_answers_with_the_part_of_the_slot(memory, fill) -> None:
    plan = ck.plan({"w": torch.ones(10)}, {}, 0, 1)
    message = json.loads(json.dumps({"slot": "b", "step": 7, "rank": 0, "index": plan.index}))
    answer = ck.handle(message, {"a": memoryview(b""), "b": fill(plan)}, memory)
    assert (answer["step"], answer["rank"]) == (7, 0)
    data, _ = ck.assemble("run-a", 7, 1, 1, [answer["part"]], {})
    state = ck.load(memory, ck.parse_manifest(data), 0, 1)
    assert torch.equal(state.shared["w"], torch.ones(10))


def test_an_unknown_slot_is_an_answer_and_no_exception(memory, fill) -> None:
    plan = ck.plan({"w": torch.ones(10)}, {}, 0, 1)
    message = {"slot": "c", "step": 7, "rank": 0, "index": plan.index}
    answer = ck.handle(message, {"a": fill(plan)}, memory)
    error = from_dict(answer["error"])
    assert isinstance(error, BadInput)
    assert error.facts == {"slot": "c", "known": ["a"]}
    assert "part" not in answer


def test_a_buffer_shorter_than_its_index_is_an_answer(memory) -> None:
    plan = ck.plan({"w": torch.ones(1000)}, {}, 0, 1)
    message = {"slot": "a", "step": 7, "rank": 0, "index": plan.index}
    answer = ck.handle(message, {"a": memoryview(bytearray(8))}, memory)
    assert answer["error"]["code"] == "bad-input"
    assert not list(memory.list())
