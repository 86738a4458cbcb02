"""One digest per weights: layout does not change it, one bit does."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

import penstock.checkpoints as ck
from penstock.base.errors import CannotTravel


def test_it_can_be_computed_without_penstock() -> None:
    weights = {"b": np.array([1.0, 2.0], "<f4"), "a": np.array(3, "<i8")}
    text = b'["a","<i8",[]]\n' + weights["a"].tobytes() + b'["b","<f4",[2]]\n'
    expected = hashlib.sha256(text + weights["b"].tobytes()).hexdigest()
    assert ck.weights_digest(weights) == f"sha256:{expected}"


def test_order_strides_and_sharing_make_no_difference() -> None:
    weight = torch.randn(4, 3)
    one = ck.weights_digest({"a": weight, "b": weight})
    assert ck.weights_digest({"b": weight.clone(), "a": weight.T.contiguous().T}) == one


def test_bits_names_shapes_and_dtypes_do() -> None:
    weight = torch.zeros(4)
    negative = torch.zeros(4)
    negative[0] = -0.0
    others = [
        {"w": negative},
        {"v": weight},
        {"w": weight.reshape(2, 2)},
        {"w": torch.zeros(4, dtype=torch.int32)},
        {"w": weight, "e": torch.empty(0)},
    ]
    assert len({ck.weights_digest(state) for state in [{"w": weight}, *others]}) == 6


def test_what_is_no_weight_is_refused_by_name() -> None:
    with pytest.raises(CannotTravel, match=r"layer\._extra_state"):
        ck.weights_digest({"layer._extra_state": {"a": torch.ones(1)}})
