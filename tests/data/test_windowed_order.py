"""The windowed shuffle: every row once, every position equally likely, few blocks at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, chisquare

from penstock.base.errors import BadInput
from penstock.data.order import (
    HELD_BYTES,
    WINDOW_BLOCKS,
    Order,
    check_order,
    order_indices,
    order_rows,
    window_of,
)


def order(rows: int, block: int, window: int, seed: int = 0) -> Order:
    return Order("data", rows, 1, seed=seed, block=block, window=window)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 300),
    block=st.integers(1, 40),
    blocks=st.integers(1, 9),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 2),
    cut=st.integers(0, 300),
)
def test_every_row_comes_once_and_any_part_can_be_computed_alone(
    rows: int, block: int, blocks: int, seed: int, epoch: int, cut: int
) -> None:
    kind = order(rows, block, block * blocks, seed)
    whole = order_indices(kind, epoch, 0, rows)
    assert sorted(whole.tolist()) == list(range(rows))
    cut = min(cut, rows)
    parts = [order_indices(kind, epoch, 0, cut), order_indices(kind, epoch, cut, rows)]
    assert np.concatenate(parts).tolist() == whole.tolist()
    backwards = order_rows(kind, epoch, np.arange(rows)[::-1])
    assert backwards.tolist() == whole.tolist()[::-1]


@pytest.mark.parametrize(
    ("rows", "block", "window"),
    [(11, 3, 6), (7, 3, 3), (6, 2, 4), (5, 2, 10)],
)
def test_every_row_is_equally_likely_at_every_position(rows: int, block: int, window: int) -> None:
    tries = 1200
    seen = np.zeros((rows, rows))
    for seed in range(tries):
        found = order_indices(order(rows, block, window, seed), 0, 0, rows)
        seen[found, np.arange(rows)] += 1
    expected = tries / rows
    statistic = ((seen - expected) ** 2 / expected).sum()
    assert chi2.sf(statistic, (rows - 1) ** 2) > 1e-4


def test_neighbours_within_a_window_are_as_likely_as_chance_says() -> None:
    """Distances between neighbours of one window are those of a uniform permutation of it."""
    rows, block, blocks = 60_000, 500, 12
    found = order_indices(order(rows, block, block * blocks), 0, 0, rows)
    same_block = np.mean(found[1:] // block == found[:-1] // block)
    assert abs(same_block - 1 / blocks) < 0.01
    close = np.abs(np.diff(found)) == 1
    assert close.sum() < 5 * 2 * rows / (block * blocks)


def test_blocks_of_a_window_are_any_blocks() -> None:
    """Which block's rows come first is uniform over the blocks."""
    rows, block, window = 4000, 100, 400
    firsts = [
        order_indices(order(rows, block, window, seed), 0, 0, 1)[0] // block for seed in range(2000)
    ]
    assert chisquare(np.bincount(firsts, minlength=40)).pvalue > 1e-4


def test_a_stretch_of_an_epoch_touches_few_blocks() -> None:
    rows, block, window = 100_000, 1000, 8000
    found = order_indices(order(rows, block, window), 0, 0, rows)
    for start in range(0, rows - window, window):
        assert len(np.unique(found[start : start + window] // block)) <= 2 * window // block + 2


def test_a_window_of_one_block_keeps_neighbours_of_the_source_together() -> None:
    rows, window = 1000, 100
    found = order_indices(order(rows, window, window), 0, 0, rows).reshape(-1, window)
    for part in found:
        assert len(set(((part - part.min()) % rows).tolist())) == window
        spread = np.sort(part)
        assert spread[-1] - spread[0] == window - 1 or spread[0] == 0  # or it goes round the end


def test_epochs_and_seeds_have_other_orders() -> None:
    kinds = [(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    found = {
        tuple(order_indices(order(500, 10, 50, seed), epoch, 0, 500).tolist())
        for seed, epoch in kinds
    }
    assert len(found) == 4


def test_the_windowed_order_is_part_of_the_format() -> None:
    found = order_indices(Order("digits/all", 23, 4, seed=7, block=4, window=8), 1, 0, 23)
    known = [0, 16, 22, 20, 2, 12, 14, 19, 18, 13, 15, 17, 11, 10, 5, 7, 9, 8, 4, 6, 1, 21, 3]
    assert found.tolist() == known


def test_an_order_without_windows_has_the_fingerprint_that_it_always_had() -> None:
    assert Order("digits/all", 100, 10, seed=3).fingerprint == 145500654331231
    assert order(100, 10, 20).fingerprint != Order("data", 100, 1).fingerprint
    assert order(100, 10, 20).fingerprint != order(100, 10, 30).fingerprint


def test_whole_or_windowed_is_decided_by_the_datasets_bytes_alone() -> None:
    assert window_of(10**9, HELD_BYTES) == (0, 0)
    block, window = window_of(10**9, HELD_BYTES + 1)
    assert block & (block - 1) == 0 and window == WINDOW_BLOCKS * block
    assert 32 << 20 < block * HELD_BYTES / 10**9 <= 64 << 20
    assert window_of(10, HELD_BYTES * 10**6) == (1, WINDOW_BLOCKS)


@pytest.mark.parametrize(("block", "window"), [(10, 15), (10, 0), (-1, 5)])
def test_a_window_that_is_not_whole_blocks_is_refused(block: int, window: int) -> None:
    with pytest.raises(BadInput, match="not whole blocks"):
        check_order(order(100, block, window), 1)
