"""Buckets: rows of similar length together, every row once, little padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput, NotFound
from penstock.data.order import Order, batch_indices
from penstock.data.samples import Buckets, over, spec_from_json, spec_to_json


def lists(memory: Any, lengths: Any, **more: Any) -> Any:
    made = [np.full(many, number + 1) for number, many in enumerate(lengths)]
    return memory({"id": np.arange(len(made)), "tokens": made, **more})


def batch(source: Any, rows: Any) -> dict[str, Any]:
    return source.assemble(source.gather(rows))


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.none() | st.just((3, 12)))
def test_every_row_is_there_once_in_order_of_length(
    memory: Any, lengths: list[int], boundaries: Any
) -> None:
    source = over(Buckets(boundaries=boundaries), lists(memory, lengths)) if any(lengths) else None
    if source is None:
        return
    got = source.gather(np.arange(len(source)))
    assert sorted(got["id"]) == list(range(len(lengths)))
    bucket = [n if boundaries is None else int(n > 3) for n in source.lengths]
    assert bucket == sorted(bucket)
    assert source.lengths.tolist() == [lengths[i] for i in got["id"]]


def test_a_batch_is_padded_to_its_longest_with_a_mask(memory: Any) -> None:
    source = over(Buckets(pad_id=-1), lists(memory, [1, 3, 2, 7]))
    got = batch(source, np.array([0, 2]))
    assert got["id"].tolist() == [0, 1]
    assert got["tokens"].tolist() == [[1, -1, -1], [2, 2, 2]]
    assert got["pad_mask"].tolist() == [[False, True, True], [False] * 3]


def test_boundaries_and_multiples_give_few_shapes(memory: Any) -> None:
    made = lists(memory, [1, 3, 2, 7, 5])
    bounded = over(Buckets(boundaries=[4, 8]), made)
    rows = np.arange(5)
    assert batch(bounded, rows[:3])["tokens"].shape == (3, 4)
    assert batch(bounded, rows[3:])["tokens"].shape == (2, 8)
    assert batch(over(Buckets(multiple=8), made), rows[:1])["tokens"].shape == (1, 8)


def test_lengths_may_be_numbers_or_those_of_texts(memory: Any) -> None:
    made = memory({"n": np.array([5, 1, 3]), "text": ["aa", "b", "cccc"]})
    assert over(Buckets(by="n"), made).gather(np.arange(3))["text"] == ["b", "cccc", "aa"]
    assert over(Buckets(by="text"), made).gather(np.arange(3))["text"] == ["b", "aa", "cccc"]


def test_the_share_of_padding_is_told(memory: Any) -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 640)
    source = over(Buckets(), lists(memory, lengths))
    rows = np.arange(640)
    sorted_ = source.padding(np.split(rows, 20))
    shuffled = source.padding(np.split(np.random.default_rng(1).permutation(rows), 20))
    assert sorted_ < 0.05 < 0.4 < shuffled


def test_missing_and_empty_lists_are_all_padding(memory: Any) -> None:
    source = over(Buckets(), memory({"tokens": [None, np.array([1, 2]), np.zeros(0, int)]}))
    got = batch(source, np.arange(3))
    assert got["tokens"].tolist() == [[0, 0], [0, 0], [1, 2]]
    assert got["pad_mask"].sum() == 4
    assert batch(source, np.arange(2))["tokens"].shape == (2, 0)


def test_a_spec_survives_json_and_keys_the_identity(memory: Any) -> None:
    spec = Buckets(by="tokens", boundaries=[4, 8], batches=2)
    assert spec_from_json(spec_to_json(spec)) == spec
    made = lists(memory, [3, 4])
    assert len({over(each, made).identity for each in (spec, Buckets(), Buckets(batches=2))}) == 3


def test_bad_buckets_are_refused(memory: Any) -> None:
    made = lists(memory, [1, 9, 30], x=np.zeros(3), n=np.array([1, -2, 3]))
    with pytest.raises(BadInput, match="row 1 has length 9, beyond the last boundary 4"):
        over(Buckets(boundaries=(2, 4)), made)
    with pytest.raises(BadInput, match='"x" is float64'):
        over(Buckets(by="x"), made)
    with pytest.raises(BadInput, match="row 1 has length -2"):
        over(Buckets(by="n"), made)
    with pytest.raises(NotFound, match="tokns"):
        over(Buckets(by="tokns"), made)
    for options in ({"boundaries": ()}, {"boundaries": (4, 2)}, {"batches": 0}, {"multiple": 0}):
        with pytest.raises(BadInput):
            Buckets(**options)


def test_shuffled_in_windows_every_row_comes_once_with_little_padding(memory: Any) -> None:
    lengths = np.random.default_rng(0).lognormal(4, 0.7, 20_000).astype(int) + 1
    spec = Buckets(batches=8)
    source = over(spec, lists(memory, lengths))
    rows = spec.window_rows(32)
    order = Order(source.identity, len(source), 32, drop_last=False, block=rows, window=rows)
    shuffled = Order(source.identity, len(source), 32, drop_last=False)
    epochs = [[batch_indices(order, epoch, k) for k in range(order.steps)] for epoch in range(2)]
    for batches in epochs:
        assert sorted(np.concatenate(batches)) == list(range(20_000))
        assert source.padding(batches) < 0.1
    assert not np.array_equal(*(np.concatenate(each) for each in epochs))
    assert source.padding([batch_indices(shuffled, 0, k) for k in range(order.steps)]) > 0.5


def test_a_map_sees_lists_without_padding_and_may_change_them(memory: Any) -> None:
    source = over(Buckets(), lists(memory, [1, 3, 2, 3]))
    rows = source.gather(np.arange(4))
    assert [len(each) for each in rows["tokens"]] == [1, 2, 3, 3]
    halved = {"tokens": [each[:1] for each in rows["tokens"]]}
    assert source.assemble(halved)["tokens"].shape == (4, 1)
    stacked = {"tokens": np.stack(rows["tokens"][2:])}  # of one length: an array already
    assert source.assemble(stacked)["pad_mask"].tolist() == [[False] * 3] * 2
    assert source.assemble({"other": 3}) == {"other": 3}
    assert source.assemble({"tokens": ["text"]}) == {"tokens": ["text"]}
