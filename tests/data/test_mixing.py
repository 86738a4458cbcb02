"""Mixtures: within one sample of the weights at every prefix, and exact to resume."""

from __future__ import annotations

from fractions import Fraction
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput, NotFound
from penstock.data import Loader
from penstock.data.columns import Column
from penstock.data.mixing import Assignment, Mix

weights = st.dictionaries(
    st.sampled_from("abcdef"),
    st.sampled_from([0, 1, 2, 3, 7, 100, 0.1, 0.37, 0.001, Fraction(1, 3)]),
    min_size=1,
).filter(lambda found: any(found.values()))


@st.composite
def mixes(draw: Any) -> Mix:
    first = draw(weights)
    some = st.dictionaries(st.sampled_from(sorted(first)), st.sampled_from([0, 1, 2, 0.25, 7]))
    schedule = st.dictionaries(st.integers(1, 20), some.filter(lambda w: any(w.values())))
    return Mix(first, schedule=draw(schedule))


@settings(max_examples=300, deadline=None)
@given(mix=mixes(), batch=st.integers(1, 7), cuts=st.lists(st.integers(1, 30), max_size=6))
def test_every_prefix_is_within_a_sample_of_the_weights_however_they_vary(
    mix: Mix, batch: int, cuts: list[int]
) -> None:
    assignment = Assignment(mix, batch)
    count = len(mix.names)
    bound = 1 - Fraction(1, 2 * count - 2) if count > 1 else Fraction(0)
    counts, g = [0] * count, 0
    for length in cuts:
        for source in assignment.sources(g, counts, length).tolist():
            counts[source] += 1
            g += 1
            promised = assignment.promised(g)
            assert all(abs(x - p) <= bound for x, p in zip(counts, promised, strict=True))
        known = assignment.counts_at(g)
        assert known is None or list(known) == counts


def test_a_weight_as_float_is_the_decimal_that_is_written() -> None:
    shares = Mix({"a": 0.1, "b": 0.2, "c": 0.7}).shares()
    assert shares == [(0, (Fraction(1, 10), Fraction(1, 5), Fraction(7, 10)))]


class Rows:
    """Samples that know their source and number."""

    def __init__(self, source: int, rows: int, **more: Any) -> None:
        self.identity = f"rows-{source}"
        self.columns = [Column("source", "number", "int64"), Column("id", "number", "int64")]
        self.columns += [Column(name, "number", "int64") for name in more]
        self._source, self._rows, self._more = source, rows, more

    def __len__(self) -> int:
        return self._rows

    def gather(self, rows: Any) -> dict[str, Any]:
        return {"source": np.full(len(rows), self._source), "id": rows.copy(), **self._more}


def loader(mix: Mix, sizes: tuple[int, ...] = (50, 30, 7), **options: Any) -> Loader:
    sources = {
        name: Rows(i, size) for i, (name, size) in enumerate(zip("abc", sizes, strict=False))
    }
    return Loader.mixed(sources, mix, **({"batch_size": 6} | options))  # type: ignore[arg-type]


def flat(batches: Any) -> list[tuple[int, int]]:
    return [
        pair
        for batch in batches
        for pair in zip(batch["source"].tolist(), batch["id"].tolist(), strict=True)
    ]


THREE = {"a": 0.6, "b": 0.3, "c": 0.1}


def test_each_source_gives_all_its_samples_before_one_comes_again() -> None:
    samples = flat(islice(loader(Mix(THREE, until=None), epochs=9), 100))
    for source, size in enumerate((50, 30, 7)):
        mine = [i for which, i in samples if which == source]
        for start in range(0, len(mine) - size, size):
            assert sorted(mine[start : start + size]) == list(range(size))
        assert mine[:size] != mine[size : 2 * size]  # each epoch has its own order


@pytest.mark.parametrize("epochs", [1, 3])
def test_until_first_ends_before_a_source_begins_one_pass_more(epochs: int) -> None:
    found = loader(Mix(THREE), epochs=epochs, drop_last=False)
    samples = flat(found)
    counts = np.bincount([source for source, _ in samples])
    assert all(counts <= np.array([50, 30, 7]) * epochs)
    assert any(counts >= np.array([50, 30, 7]) * epochs - 1)
    assert len(flat(loader(Mix(THREE), epochs=epochs))) == len(samples) // 6 * 6


def test_until_all_ends_with_a_full_batch_when_every_source_gave_all() -> None:
    samples = flat(loader(Mix(THREE, until="all")))
    assert len(samples) % 6 == 0
    assert {i for source, i in samples if source == 0} == set(range(50))
    assert {i for source, i in samples if source == 1} == set(range(30))
    assert 95 <= len(samples) <= 105  # 30 / 0.3


def test_without_end_there_is_no_number_of_steps() -> None:
    endless = loader(Mix(THREE, until=None))
    assert len(flat(islice(endless, 500))) == 3000
    with pytest.raises(BadInput, match="without end"):
        len(endless)


@settings(max_examples=30, deadline=None)
@given(
    stop=st.integers(0, 12),
    world_size=st.sampled_from([1, 2, 3, 6]),
    given=st.sampled_from(
        [
            Mix(THREE, until="all"),
            Mix({"a": 0.612345, "b": 0.3, "c": 0.1}),  # too long a period to be kept
            Mix(THREE, schedule={3: {"a": 1, "c": 1}, 8: {"b": 2, "c": 1}}),
        ]
    ),
)
def test_a_mixture_goes_on_exactly_at_another_world_size(
    given: Mix, stop: int, world_size: int
) -> None:
    whole = [flat([batch]) for batch in loader(given, epochs=2)]
    first = loader(given, epochs=2)
    head = [flat([batch]) for batch in islice(first, stop)]
    state = first.state()
    assert all(type(value) is int for value in state.values())
    assert sum(state[f"mixed_{i}"] for i in range(3)) == 6 * len(head)
    parts = []
    for rank in range(world_size):
        rest = loader(given, epochs=2, rank=rank, world_size=world_size)
        rest.load_state(state)
        parts.append([flat([batch]) for batch in rest])
    rest_together = [list(chain.from_iterable(step)) for step in zip(*parts, strict=True)]
    assert head + rest_together == whole
    rewound = loader(given, epochs=2)
    rewound.load_state({**state, "next": 0})  # as an evaluation does
    assert [flat([batch]) for batch in rewound] == whole


def test_a_schedule_changes_the_weights_at_its_step() -> None:
    mix = Mix({"a": 1, "b": 0}, schedule={2: {"b": 1}}, until="all")
    batches = list(islice(loader(mix, sizes=(12, 30), epochs=1), 4))
    assert [sorted(set(batch["source"].tolist())) for batch in batches] == [[0], [0], [1], [1]]


def test_other_weights_are_another_order() -> None:
    state = loader(Mix(THREE)).state()
    with pytest.raises(BadInput, match="mixture"):
        loader(Mix({**THREE, "a": 0.7})).load_state(state)


def test_a_filter_holds_for_every_source() -> None:
    samples = flat(loader(Mix(THREE), filter=lambda sample: sample["id"] % 2 == 0))
    assert samples and all(i % 2 == 0 for _, i in samples)


def test_sources_with_other_columns_are_refused_with_all_differences() -> None:
    sources = {"a": Rows(0, 9), "b": Rows(1, 9, extra=1), "c": Rows(2, 9)}
    sources["c"].columns = [Column("source", "text", "string")]
    with pytest.raises(BadInput) as error:
        Loader.mixed(sources, Mix(THREE), batch_size=3)  # type: ignore[arg-type]
    assert '"extra": missing in a, int64 in b' in error.value.what
    assert '"id": int64 in a, missing in c' in error.value.what
    assert '"source": int64 in a, string in c' in error.value.what


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Mix({}), BadInput, "nothing"),
        (lambda: Mix({"a": 0}), BadInput, "every weight is 0"),
        (lambda: Mix({"a": -1}), BadInput, "weight of"),
        (lambda: Mix({"a": float("nan")}), BadInput, "weight of"),
        (lambda: Mix({"a": 1}, until="last"), BadInput, "until is 'last'"),  # type: ignore[arg-type]
        (lambda: Mix({"aa": 1}, schedule={1: {"ab": 1}}), NotFound, '"ab", which is not mixed'),
        (lambda: Mix({"a": 1}, schedule={0: {"a": 1}}), BadInput, "Count steps from 1"),
        (lambda: loader(Mix(THREE), batch_size=1000), BadInput, "more than the mixture gives"),
        (lambda: loader(Mix(THREE), batch_size=6, world_size=4), BadInput, "divide by 4 ranks"),
        (lambda: loader(Mix({"a": 1})), BadInput, "Give a source for each name"),
        (lambda: loader(Mix(THREE), pad_last=True), BadInput, "no last batch"),
        (
            lambda: loader(Mix({**THREE, "c": 1}, "all", {4: {"a": 1, "b": 1}}), batch_size=1),
            BadInput,
            "never gives all",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def named(sample: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"{sample['source']}/{sample['id']}", "both": np.zeros((2, 3), np.float32)}


def test_a_rank_without_a_row_of_a_batch_gets_the_columns_of_the_others() -> None:
    batch = next(
        iter(loader(Mix(THREE), batch_size=2, shuffle=False, map=named, rank=2, world_size=3))
    )
    assert batch["name"] == [] and batch["both"].shape == (0, 2, 3)


def test_batches_of_a_mixture_keep_their_dtypes() -> None:
    batch = next(iter(loader(Mix(THREE))))
    assert batch["source"].dtype == torch.int64 and batch["id"].shape == (6,)
