"""Shards as boxes: every element once, whatever the shape, mesh and placements."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset

from penstock.checkpoints import boxes

shapes = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@st.composite
def meshes(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[list[int], list[int | None]]:
    """(shape of a mesh of at most 4 places, which dimension of the tensor each of its cuts)."""
    mesh = draw(st.sampled_from([[1], [2], [3], [4], [1, 2], [2, 1], [2, 2], [4, 1], [1, 3]]))
    cuts = st.sampled_from([None, *range(len(shape))])
    return mesh, [draw(cuts) for _ in mesh]


def places(mesh: list[int]) -> itertools.product[tuple[int, ...]]:
    return itertools.product(*map(range, mesh))


@given(st.data(), shapes)
def test_the_shards_of_a_mesh_have_every_element_once_and_replicas_the_same(data, shape) -> None:
    mesh, dims = data.draw(meshes(shape))
    held: dict[int, list[boxes.Box]] = {}
    for place in places(mesh):
        number, count = boxes.replica(mesh, dims, place)
        assert count == math.prod(n for n, dim in zip(mesh, dims, strict=True) if dim is None)
        held.setdefault(number, []).append(boxes.local_box(shape, mesh, dims, place))
    assert len(held) == count
    for parts in held.values():
        assert parts == held[0]
        assert boxes.covers(shape, [part for part in parts if part.volume])


@given(st.data(), shapes)
def test_shards_are_where_torch_has_them(data, shape) -> None:
    mesh, dims = data.draw(meshes(shape))
    placements = [Replicate() if dim is None else Shard(dim) for dim in dims]
    for place in places(mesh):
        sizes, offsets = _compute_local_shape_and_global_offset(
            shape, mesh, lambda n, at=place: at[n], placements
        )
        box = boxes.local_box(shape, mesh, dims, place)
        assert box.sizes == tuple(sizes)
        if box.volume:
            assert box.offsets == tuple(offsets)


@given(st.data(), shapes)
def test_a_run_of_elements_is_its_boxes_in_order(data, shape) -> None:
    total = math.prod(shape)
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    numbers = np.arange(total).reshape(shape)
    found: list[int] = []
    for at, box in boxes.run_boxes(shape, start, stop):
        assert at == len(found)
        assert boxes.is_run(shape, box)
        found += numbers[box.slices].reshape(-1).tolist()
    assert found == list(range(start, stop))
    assert len(list(boxes.run_boxes(shape, start, stop))) <= max(1, 2 * len(shape) - 1)


@given(st.data(), shapes)
def test_a_span_begins_and_ends_with_the_box(data, shape) -> None:
    lows = [data.draw(st.integers(0, n - 1)) for n in shape]
    box = boxes.Box(
        tuple(lows),
        tuple(data.draw(st.integers(1, n - low)) for n, low in zip(shape, lows, strict=True)),
    )
    inside = np.arange(math.prod(shape)).reshape(shape)[box.slices].reshape(-1)
    assert boxes.span(shape, box) == (inside[0], inside[-1] + 1)
    run = inside.tolist() == list(range(inside[0], inside[-1] + 1))
    assert boxes.is_run(shape, box) == run


def test_what_is_missing_or_there_twice_is_seen() -> None:
    upper, lower = boxes.Box((0, 0), (1, 3)), boxes.Box((1, 0), (1, 3))
    assert boxes.covers((2, 3), [lower, upper])
    assert not boxes.covers((2, 3), [upper])
    assert not boxes.covers((2, 3), [upper, upper])
    assert not boxes.covers((2, 3), [upper, boxes.Box((2, 0), (1, 3))])
    assert torch.Size([2, 3]) == (2, 3)  # shapes of torch are shapes here
