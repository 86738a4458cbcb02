"""Which samples form global batch k: a permutation, uniform, free of memory and of the machine."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from penstock.base.errors import BadInput
from penstock.data.order import (
    Order,
    batch_indices,
    check_order,
    order_indices,
    permute,
    rank_slice,
)

SEEDS = 2000
GOLDEN = [1, 8, 2, 0, 5, 4, 7, 3, 6, 9]
GOLDEN_DIGEST = "5d560c4465f28b49"


@given(n=st.integers(1, 3000), key=st.text(max_size=8))
def test_every_row_comes_exactly_once(n: int, key: str) -> None:
    assert sorted(permute(np.arange(n), n, key).tolist()) == list(range(n))


@given(n=st.integers(1, 2**62 - 1), at=st.data())
def test_a_position_is_found_without_the_others_however_many_there_are(
    n: int, at: st.DataObject
) -> None:
    some = np.array(at.draw(st.lists(st.integers(0, n - 1), max_size=20)), dtype=np.int64)
    together = permute(some, n, "key")
    alone = [permute(some[i : i + 1], n, "key")[0] for i in range(len(some))]
    assert together.tolist() == alone
    assert all(0 <= row < n for row in alone)


def test_the_order_is_a_format_that_never_changes() -> None:
    assert permute(np.arange(10), 10, "penstock").tolist() == GOLDEN
    order = Order("sha256:0/train", 1797, 64, seed=3)
    rows = order_indices(order, 7, 0, 1797).astype("<i8").tobytes()
    assert hashlib.sha256(rows).hexdigest()[:16] == GOLDEN_DIGEST


@pytest.mark.parametrize("n", [1, 2, 3, 10, 97])
def test_the_order_is_the_one_that_its_docstring_defines(n: int) -> None:
    whole, bits = 2**64, hashlib.shake_256(b"penstock-order-1/any").digest(8 * 14)
    keys = [int.from_bytes(bits[i : i + 8], "little") for i in range(0, 112, 8)]
    a = math.ceil(math.sqrt(n))
    b = -(-n // a)

    def scaled(value: int, key: int, side: int) -> int:
        z = (value * 0x9E3779B97F4A7C15 + key) % whole
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % whole
        z = (z ^ z >> 27) * 0x94D049BB133111EB % whole
        return ((z ^ z >> 31) >> 32) * side >> 32

    def rounds(x: int) -> int:
        left, right = divmod(x, b)
        for i in range(12):
            if i % 2 == 0:
                left = (left + scaled(right, keys[i], a)) % a
            else:
                right = (right + scaled(left, keys[i], b)) % b
        return left * b + right

    def plain(x: int) -> int:
        x = rounds((x + keys[12]) % n)
        while x >= n:
            x = rounds(x)
        return (x + keys[13]) % n

    assert permute(np.arange(n), n, "any").tolist() == [plain(x) for x in range(n)]


@pytest.mark.parametrize("n", [2, 3, 6, 7, 16, 31, 100])
def test_every_row_is_equally_likely_at_every_position(n: int) -> None:
    seen = np.zeros((n, n))
    for seed in range(SEEDS):
        seen[np.arange(n), permute(np.arange(n), n, f"uniform/{seed}")] += 1
    assert _likelihood(seen, degrees=(n - 1) ** 2) > 1e-4


@pytest.mark.parametrize("n", [3, 5, 6, 7, 16, 31])
def test_neighbours_are_as_likely_as_chance_makes_them(n: int) -> None:
    seen = np.zeros((n, n))
    for seed in range(SEEDS):
        first, second = permute(np.arange(2), n, f"neighbours/{seed}")
        seen[first, second] += 1
    assert not np.diagonal(seen).any()
    pairs = seen[~np.eye(n, dtype=bool)]
    assert _likelihood(pairs, degrees=pairs.size - 1) > 1e-4


def test_distances_between_neighbours_are_uniform_in_a_large_order() -> None:
    n = 10_007
    order = permute(np.arange(n), n, "distances")
    distances = np.bincount((np.diff(order) % n) * 50 // n, minlength=50)
    assert _likelihood(distances.astype(float), degrees=49) > 1e-4


def _likelihood(seen: np.ndarray, degrees: int) -> float:
    """How often chance alone gives counts at least this uneven."""
    expected = seen.sum() / seen.size
    return float(chi2.sf(((seen - expected) ** 2 / expected).sum(), degrees))


def test_source_seed_and_epoch_each_give_another_order() -> None:
    base = Order("sha256:0/train", 500, 50)
    others = [Order("sha256:1/train", 500, 50), Order("sha256:0/train", 500, 50, seed=1)]
    orders = [order_indices(base, 0, 0, 500), order_indices(base, 1, 0, 500)]
    orders += [order_indices(other, 0, 0, 500) for other in others]
    for i, one in enumerate(orders):
        assert sum((one == two).all() for two in orders[i:]) == 1


@given(
    rows=st.integers(1, 400),
    batch=st.integers(1, 50),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_the_batches_of_an_epoch_are_its_order_cut_up(
    rows: int, batch: int, shuffle: bool, drop_last: bool
) -> None:
    order = Order("any", rows, batch, shuffle=shuffle, drop_last=drop_last)
    batches = [batch_indices(order, 2, step) for step in range(order.steps)]
    whole = order_indices(order, 2, 0, rows)
    kept = rows // batch * batch if drop_last else rows
    assert np.concatenate([[], *batches]).tolist() == whole[:kept].tolist()
    assert all(len(each) == batch for each in batches[:-1])


@given(length=st.integers(0, 60), world_size=st.integers(1, 9))
def test_the_ranks_parts_are_contiguous_and_differ_by_one_at_most(
    length: int, world_size: int
) -> None:
    parts = [rank_slice(np.arange(length), rank, world_size) for rank in range(world_size)]
    assert np.concatenate(parts).tolist() == list(range(length))
    assert max(map(len, parts)) - min(map(len, parts)) <= (1 if length % world_size else 0)


def test_a_batch_that_does_not_divide_by_the_ranks_names_both() -> None:
    with pytest.raises(BadInput, match="global batch of 64 does not divide by 3 ranks") as error:
        check_order(Order("any", 1000, 64), 3)
    assert error.value.facts == {"batch_size": 64, "world_size": 3}
    assert "63" in error.value.fix


def test_evaluation_in_order_may_be_uneven() -> None:
    check_order(Order("any", 1000, 64, shuffle=False, drop_last=False), 3)


def test_a_batch_larger_than_the_data_is_refused_unless_it_is_kept() -> None:
    with pytest.raises(BadInput, match="64 is more than the 10 rows"):
        check_order(Order("any", 10, 64), 1)
    check_order(Order("any", 10, 64, drop_last=False), 1)


@pytest.mark.parametrize("batch", [0, -4])
def test_a_batch_of_nothing_is_refused(batch: int) -> None:
    with pytest.raises(BadInput, match="not positive"):
        check_order(Order("any", 10, batch), 1)


def test_the_fingerprint_differs_when_anything_does() -> None:
    orders = [
        Order("a", 10, 5),
        Order("b", 10, 5),
        Order("a", 11, 5),
        Order("a", 10, 2),
        Order("a", 10, 5, seed=1),
        Order("a", 10, 5, shuffle=False),
        Order("a", 10, 5, drop_last=False),
    ]
    assert len({each.fingerprint for each in orders}) == len(orders)
