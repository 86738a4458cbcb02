"""Every tree that is allowed comes back to the last bit; every other is refused by its path."""

from __future__ import annotations

import random
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock.checkpoints as ck
from penstock.base.errors import CannotTravel, Damaged
from penstock.base.hashing import canonical_json
from penstock.blobs import open_blobs
from penstock.checkpoints.arrays import TORCH_DTYPES
from penstock.checkpoints.state import decode, encode

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

NUMPY_DTYPES = ["?", "u1", ">i2", "<i8", "<f2", ">f4", "<f8", "<c16", "<M8[ns]", "<U3", "|S5"]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any dtype, any bits, some empty, some transposed, some strided."""
    dtype = getattr(torch, draw(st.sampled_from(sorted(TORCH_DTYPES))))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8).copy()
    flat = torch.from_numpy(raw & 1 if dtype is torch.bool else raw)
    tensor = flat.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
    match draw(st.sampled_from(["plain", "transposed", "strided"])):
        case "transposed" if tensor.ndim > 1:
            return tensor.transpose(0, 1)
        case "strided" if tensor.ndim:
            return tensor[::2]
    return tensor


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    text = draw(st.sampled_from(NUMPY_DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    kind = np.dtype(text)
    array = np.zeros(shape, kind)
    if kind.kind not in "bUS" and array.size:
        count = array.nbytes
        raw = draw(st.binary(min_size=count, max_size=count))
        array = np.frombuffer(raw, kind).reshape(shape)
    array = array[::2] if array.ndim and draw(st.booleans()) else array
    return array.T if draw(st.booleans()) else array


anything = st.characters(exclude_categories=[])  # lone surrogates too
keys = st.one_of(
    st.text(anything, max_size=5),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(max_size=5),
    st.tuples(st.integers(), st.text(max_size=3)),
)
leaves = st.one_of(
    keys,
    st.binary(max_size=600),
    tensors(),
    arrays(),
    arrays().filter(lambda a: a.ndim == 0).map(lambda a: a[()]),
    st.lists(st.integers(0, 9), max_size=3).map(torch.Size),
    st.sampled_from([torch.device("cuda:1"), torch.bfloat16, torch.device("cpu")]),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=100)
@given(shared=trees, own=trees)
def test_any_state_comes_back_to_the_last_bit(shared, own, save, same) -> None:
    blobs = open_blobs("memory://")
    checkpoint = save(blobs, shared, [own])
    state = ck.load(blobs, ck.read_manifest(blobs, checkpoint.digest), 0, 1)
    assert same(state.shared, shared)
    assert same(state.own, own)


def test_the_states_of_random_generators_come_back(memory, save, same) -> None:
    own = {
        "python": random.Random(5).getstate(),
        "numpy": np.random.default_rng(5).bit_generator.state,  # holds 128-bit integers
        "legacy": np.random.RandomState(5).get_state(),
        "torch": torch.Generator().manual_seed(5).get_state(),
    }
    checkpoint = save(memory, {}, [own])
    state = ck.load(memory, ck.read_manifest(memory, checkpoint.digest), 0, 1)
    assert same(state.own, own)
    random.Random().setstate(state.own["python"])


def test_what_python_counts_as_equal_keeps_its_type() -> None:
    tree = [0, 0.0, -0.0, False, 1, 1.0, True, 2**53 + 1, -(2**63), 2**63, float("-inf")]
    back = decode(encode(tree, "own").structure, [])
    assert [(type(v), str(v)) for v in back] == [(type(v), str(v)) for v in tree]


@pytest.mark.parametrize("odd", [3, 2**63, -(2**63) - 1, True, 1.0, None, "5"])
def test_many_numbers_come_back_as_what_they_are(odd) -> None:
    for tree in ([*range(600), odd], (odd, *range(600))):
        back = decode(encode(tree, "own").structure, [])
        assert type(back) is type(tree)
        assert [(type(v), v) for v in back] == [(type(v), v) for v in tree]


def test_an_ordered_dict_comes_back_as_a_dict_in_its_order() -> None:
    back = decode(encode(OrderedDict(b=1, a=2), "own").structure, [])
    assert type(back) is dict
    assert list(back) == ["b", "a"]


def test_tied_weights_are_stored_once_and_come_back_tied(memory, save) -> None:
    weight = torch.randn(8, 8)
    shared = {"encoder": weight, "decoder": weight, "row": weight[0], "view": weight.T}
    encoded = encode(shared, "shared")
    assert [entry.name for entry in encoded.entries] == [
        "shared.encoder",
        "shared.row",
        "shared.view",
    ]
    checkpoint = save(memory, shared, [{}])
    state = ck.load(memory, ck.read_manifest(memory, checkpoint.digest), 0, 1).shared
    assert state["encoder"] is state["decoder"]
    assert torch.equal(state["row"], weight[0])
    assert torch.equal(state["view"], weight.T)


def test_channels_last_keeps_its_memory_format(memory, save) -> None:
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    checkpoint = save(memory, {"image": image}, [{}])
    back = ck.load(memory, ck.read_manifest(memory, checkpoint.digest), 0, 1).shared["image"]
    assert torch.equal(back, image)
    assert back.stride() == image.stride()


def test_conjugate_and_negative_views_are_resolved(memory, save) -> None:
    number = torch.randn(4, dtype=torch.complex64)
    shared = {"plain": number, "conj": number.conj(), "imag": number.conj().imag}
    checkpoint = save(memory, shared, [{}])
    back = ck.load(memory, ck.read_manifest(memory, checkpoint.digest), 0, 1).shared
    assert all(torch.equal(back[key], shared[key].resolve_neg()) for key in shared)


class Mine:
    """An object that nobody but its author knows."""


Point = namedtuple("Point", "x y")
Loop: list[Any] = []
Loop.append(Loop)


@pytest.mark.parametrize(
    ("value", "clue"),
    [
        (Mine(), "Mine"),
        (Point(1, 2), "plain tuples"),
        ({1, 2}, "set"),
        (lambda: None, "function"),
        (random.Random(), "Random"),
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.empty(3, device="meta"), "meta"),
        (torch.empty(2, dtype=torch.uint4), "uint4"),
        (np.array([Mine()], dtype=object), "object"),
        (np.zeros(2, dtype=[("a", "i4")]), "dtype"),
        (Loop, "contains itself"),
    ],
)
def test_what_cannot_travel_is_refused_by_its_path(value, clue) -> None:
    with pytest.raises(CannotTravel, match=clue) as caught:
        ck.plan({"model": {}}, {"things": [1, {"it": value}]}, 0, 1)
    assert caught.value.facts["path"].startswith("own.things.1.it")


def test_a_key_that_cannot_travel_is_refused() -> None:
    with pytest.raises(CannotTravel, match=r"its key is a .*Mine"):
        encode({"state": {Mine(): 1}}, "shared")


def test_the_path_names_parameters_and_optimizer_state(trained) -> None:
    names = [entry.name for entry in encode(trained(1), "shared").entries]
    assert "shared.model.0.weight" in names
    assert "shared.optimizer.state.0.exp_avg" in names


@pytest.mark.parametrize(
    "structure",
    [
        {"pickle": "gASV"},
        {"entry": 3},
        {"entry": 0, "int": "0x1"},
        {"int": "seven"},
        {"scalar": ["|O", "00"]},
        {"dtype": "load"},
        {"dict": [["a"]]},
    ],
)
def test_a_structure_that_penstock_never_wrote_is_damage(structure) -> None:
    with pytest.raises(Damaged):
        decode(structure, [])


@settings(max_examples=50)
@given(trees)
def test_a_structure_is_canonical_json(tree) -> None:
    assert canonical_json(encode(tree, "own").structure)
