"""Packing loses no token, keeps boundaries, and follows from the lengths alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput, NotFound
from penstock.data.samples import Pack, over, spec_from_json, spec_to_json
from penstock.data.samples.packing import best_fit

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=60).filter(any)


def documents(memory: Any, lengths: list[int], **more: Any) -> Any:
    """Document d holds d * 1000 + 1, d * 1000 + 2, …"""
    made = [np.arange(many, dtype=np.int32) + 1000 * d + 1 for d, many in enumerate(lengths)]
    return memory({"tokens": made, **more})


def every(source: Any) -> dict[str, Any]:
    return source.gather(np.arange(len(source)))


@settings(deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 16), window=st.integers(1, 20))
def test_no_token_is_lost_or_given_twice(
    memory: Any, lengths: list[int], length: int, window: int
) -> None:
    made = documents(memory, lengths)
    source = over(Pack(length=length, window=window), made)
    got = every(source)
    there = got["segment_ids"] > 0
    assert sorted(got["tokens"][there]) == sorted(np.concatenate(made.data["tokens"]))
    assert (got["tokens"][~there] == 0).all()
    assert source.tokens == sum(lengths)
    assert source.documents == sum(map(bool, lengths))
    assert source.padding == pytest.approx(1 - sum(lengths) / there.size)


@settings(deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 16))
def test_a_segment_is_one_piece_of_one_document(
    memory: Any, lengths: list[int], length: int
) -> None:
    got = every(over(Pack(length=length), documents(memory, lengths)))
    for tokens, segments, positions in zip(
        got["tokens"], got["segment_ids"], got["position_ids"], strict=True
    ):
        used = np.count_nonzero(segments)
        assert (segments[:used] > 0).all()  # padding only behind
        assert (np.diff(segments[:used]) >= 0).all()
        for number in range(1, segments.max() + 1):
            piece = tokens[segments == number]
            assert (np.diff(piece) == 1).all()  # of one document, in order
            assert len(set(piece // 1000)) == 1
            assert positions[segments == number].tolist() == list(range(len(piece)))


@settings(deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 16))
def test_a_document_is_cut_only_where_it_must_be(
    memory: Any, lengths: list[int], length: int
) -> None:
    got = every(over(Pack(length=length), documents(memory, lengths)))
    pieces: dict[int, int] = {}
    for tokens, segments in zip(got["tokens"], got["segment_ids"], strict=True):
        for number in range(1, segments.max() + 1):
            document = int(tokens[segments == number][0]) // 1000
            pieces[document] = pieces.get(document, 0) + 1
    assert pieces == {d: -(-many // length) for d, many in enumerate(lengths) if many}


def one_by_one(sizes: list[int], room: int) -> list[int]:
    """Best-fit decreasing by its definition; of equally full rows the one that became so first."""
    left: list[int] = []
    changed: list[int] = []
    bins = [0] * len(sizes)
    for now, item in enumerate(sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))):
        fitting = [b for b in range(len(left)) if left[b] >= sizes[item]]
        if not fitting:
            left.append(room)
            changed.append(now)
            fitting = [len(left) - 1]
        chosen = min(fitting, key=lambda b: (left[b], changed[b]))
        left[chosen] -= sizes[item]
        changed[chosen] = now
        bins[item] = chosen
    return bins


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 30), max_size=80), room=st.integers(30, 60))
def test_equal_sizes_at_once_fill_bins_as_one_after_the_other(sizes: list[int], room: int) -> None:
    assert best_fit(np.array(sizes, np.int64), room).tolist() == one_by_one(sizes, room)


def test_packing_is_part_of_the_format() -> None:
    """To change it is to change every resumed run."""
    sizes = np.random.default_rng(0).integers(1, 100, 12)
    assert sizes.tolist() == [85, 64, 51, 27, 31, 5, 8, 2, 18, 81, 65, 91]
    assert best_fit(sizes, 100).tolist() == KNOWN


KNOWN = [1, 4, 5, 4, 3, 4, 0, 3, 2, 2, 3, 0]


def test_rows_are_nearly_full_for_lengths_as_texts_have_them() -> None:
    lengths = np.random.default_rng(1).lognormal(5.5, 1, 20_000).astype(np.int64) % 1024 + 1
    bins = best_fit(lengths, 1024)
    used = np.bincount(bins, weights=lengths)
    assert used.max() <= 1024
    assert used.sum() / (1024 * len(used)) > 0.99


def test_several_columns_are_packed_alike(memory: Any) -> None:
    made = documents(memory, [3, 5, 2])
    made = memory(made.data | {"weight": [each / 7 for each in made.data["tokens"]]})
    got = every(over(Pack(length=6, columns=("tokens", "weight")), made))
    assert got["weight"].dtype == np.float64
    assert np.array_equal(got["weight"], got["tokens"] / 7)


def test_without_boundaries_only_tokens_are_given(memory: Any) -> None:
    source = over(Pack(length=4, boundaries=False, pad_id=9), documents(memory, [3, 2]))
    got = every(source)
    assert set(got) == {"tokens"} == {each.name for each in source.columns}
    assert got["tokens"].tolist() == [[1, 2, 3, 9], [1001, 1002, 9, 9]]


def test_a_batch_reads_only_its_documents(memory: Any) -> None:
    made = documents(memory, [4] * 10)
    source = over(Pack(length=4), made)
    before = made.gathered["tokens"]
    source.gather(np.array([7, 2]))
    assert made.gathered["tokens"] - before == 2
    source.ahead(np.array([3]))
    assert made.calls[-1][0] == "ahead"
    assert len(made.calls[-1][1]) == 1


def test_a_missing_document_holds_nothing(memory: Any) -> None:
    made = memory({"tokens": [np.array([1, 2]), None, np.array([3])]})
    assert every(over(Pack(length=3), made))["tokens"].tolist() == [[1, 2, 3]]


def test_a_spec_survives_json_and_keys_the_identity(memory: Any) -> None:
    spec = Pack(length=7, columns=["tokens"], pad_id=3)
    assert spec_from_json(spec_to_json(spec)) == spec
    made = documents(memory, [3, 4])
    seen = {over(each, made).identity for each in (spec, Pack(), Pack(length=7), Pack(window=5))}
    assert len(seen) == 4


def test_what_cannot_be_packed_is_refused(memory: Any) -> None:
    made = documents(memory, [3, 4], text=["a", "b"], more=[np.zeros(3), np.zeros(5)])
    with pytest.raises(BadInput, match='"text" is string, not lists'):
        over(Pack(columns="text"), made)
    with pytest.raises(NotFound, match="tokns") as error:
        over(Pack(columns="tokns"), made)
    assert '"tokens"' in error.value.fix
    with pytest.raises(BadInput, match='row 1 has 4 values in "tokens" and 5 in "more"'):
        over(Pack(columns=("tokens", "more")), made)
    with pytest.raises(BadInput, match="no token is left"):
        over(Pack(), memory({"tokens": [np.zeros(0, np.int64)] * 2}))
    for options in ({"length": 0}, {"window": 0}, {"columns": ()}, {"length": 1.5}):
        with pytest.raises(BadInput):
            Pack(**options)  # type: ignore[arg-type]
