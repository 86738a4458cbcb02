"""The manifest refuses what does not fit together, and what it does not know."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import penstock.checkpoints as ck
from penstock.base.errors import BadInput, CannotTravel, Damaged, NewerSchema, NotFound


@pytest.fixture
def parts(memory, fill):
    """`parts(2)`: what two ranks persisted; `changed` replaces rank 1's shared state."""

    def make(world_size: int, changed: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        found = []
        for rank in range(world_size):
            shared = {"model": {"w": torch.ones(50), "b": torch.ones(50)}, "optimizer": {"lr": 0.1}}
            if rank == 1:
                shared |= changed or {}
            plan = ck.plan(shared, {"rank": rank}, rank, world_size)
            found.append(ck.persist(fill(plan), plan.index, memory))
        return found

    return make


def test_a_manifest_keeps_what_it_was_given(memory, parts) -> None:
    extra = {"data": {"train": {"next": 7}}, "code": "sha256:0", "metrics": {"loss": float("nan")}}
    data, refs = ck.assemble("run-a", 30, 2, 2, parts(2), extra)
    manifest = ck.read_manifest(memory, memory.put(data))
    assert (manifest.run_id, manifest.step, manifest.generation) == ("run-a", 30, 2)
    assert manifest.world_size == 2
    assert manifest.blobs == refs
    assert all(memory.exists(digest) for digest in refs)
    assert manifest.extra["data"] == extra["data"]
    assert manifest.extra["metrics"]["loss"] != manifest.extra["metrics"]["loss"]
    assert manifest.nbytes == sum(memory.stat(part.blob).size for part in manifest.parts)


def test_parts_in_any_order_give_the_same_bytes(parts) -> None:
    made = parts(3)
    assert ck.assemble("r", 1, 1, 3, made, {}) == ck.assemble("r", 1, 1, 3, made[::-1], {})


def test_a_part_survives_json(parts) -> None:
    made = parts(2)
    copied = json.loads(json.dumps(made))
    assert ck.assemble("r", 1, 1, 2, made, {}) == ck.assemble("r", 1, 1, 2, copied, {})


@pytest.mark.parametrize("keep", [[0], [1], [0, 0], [0, 1, 1], []])
def test_missing_and_doubled_parts_are_refused(parts, keep) -> None:
    made = parts(2)
    with pytest.raises(BadInput, match="cannot be assembled"):
        ck.assemble("run-a", 30, 1, 2, [made[n] for n in keep], {})


def test_parts_of_another_world_size_are_refused(parts) -> None:
    with pytest.raises(BadInput, match="world sizes"):
        ck.assemble("run-a", 30, 1, 2, [*parts(2)[:1], *parts(3)[1:2]], {})


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"optimizer": {"lr": 0.2}}, "optimizer"),
        ({"model": {"w": torch.ones(50), "b": torch.ones(51)}}, "(tensors)"),
        ({"more": 1}, "more"),
    ],
)
def test_ranks_that_disagree_are_named_with_the_place(parts, changed, key) -> None:
    with pytest.raises(BadInput, match="ranks 0 and 1 disagree at step 30") as caught:
        ck.assemble("run-a", 30, 1, 2, parts(2, changed), {})
    assert key in caught.value.facts["keys"]


def test_tensors_do_not_belong_into_extra(parts) -> None:
    with pytest.raises(BadInput, match=r"extra\.cursor"):
        ck.assemble("run-a", 30, 1, 1, parts(1), {"cursor": torch.ones(2)})
    with pytest.raises(CannotTravel, match=r"extra\.cursor"):
        ck.assemble("run-a", 30, 1, 1, parts(1), {"cursor": object()})


def test_a_newer_format_is_refused_by_name(memory, parts) -> None:
    data = json.loads(ck.assemble("run-a", 30, 1, 1, parts(1), {})[0])
    data["format"] = 3
    with pytest.raises(NewerSchema, match="Upgrade"):
        ck.read_manifest(memory, memory.put(json.dumps(data).encode()))


def test_a_manifest_that_is_not_there_is_not_found(memory) -> None:
    with pytest.raises(NotFound):
        ck.read_manifest(memory, "sha256:" + "0" * 64)


def _alter(data: dict[str, Any], path: str, value: Any) -> bytes:
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    node: Any = data
    for step in way:
        node = node[step]
    node[last] = value
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "dataset"),
        ("format", "1"),
        ("parts", []),
        ("parts/0/blob", "../../etc/passwd"),
        ("parts/0/nbytes", 10),
        ("parts/0/chunks/0/nbytes", -1),
        ("parts/0/pieces/0/offset", 10**9),
        ("parts/0/pieces/0/start", -64),
        ("parts/0/pieces/0/entry", 99),
        ("parts/0/pieces/0/tree", "else"),
        ("parts/0/pieces/0/surprise", 1),
        ("extra", {"pickle": ""}),
        ("shared", None),
    ],
)
def test_an_altered_manifest_is_damage_and_never_a_traceback(parts, path, value) -> None:
    data = json.loads(ck.assemble("run-a", 30, 1, 1, parts(1), {})[0])
    with pytest.raises(Damaged):
        ck.parse_manifest(_alter(data, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("shared/entries/0/dtype", "object"),
        ("shared/entries/0/shape", [10**12]),
        ("shared/entries/0/shape", [-50, -1]),
        ("shared/entries/0/kind", "pickle"),
        ("shared/entries/0/stride", [0]),
        ("shared/structure", {"pickle": ""}),
        ("parts/0/pieces", []),
    ],
)
def test_an_altered_tree_is_damage_when_it_is_loaded(memory, parts, path, value) -> None:
    data = json.loads(ck.assemble("run-a", 30, 1, 1, parts(1), {})[0])
    with pytest.raises(Damaged):
        ck.load(memory, ck.parse_manifest(_alter(data, path, value)), 0, 1)


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_manifest_are_damage(data) -> None:
    with pytest.raises(Damaged):
        ck.parse_manifest(data)
