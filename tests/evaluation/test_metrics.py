from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.evaluation.metrics import Moments, Tally, join, score

floats = st.lists(st.floats(-1e3, 1e3), max_size=60).map(np.array)


@given(floats, st.integers(0, 60))
def test_parts_joined_are_the_whole(values, at):
    whole, joined = Moments.of(values), Moments.of(values[:at]).joined(Moments.of(values[at:]))
    assert joined.n == whole.n
    assert joined.mean == pytest.approx(whole.mean, abs=1e-9)
    assert joined.squares == pytest.approx(whole.squares, rel=1e-9, abs=1e-6)


def test_score_is_softmax_cross_entropy():
    import torch

    logits = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(50) % 7
    found = score(logits.numpy(), labels.numpy())
    wanted = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert np.allclose(found.loss, wanted)
    assert np.array_equal(found.predicted, logits.argmax(1))
    assert np.allclose(found.score, logits.softmax(1).max(1).values)
    by_probability = score(logits.softmax(1).numpy(), labels.numpy(), "probabilities")
    assert np.allclose(by_probability.loss, found.loss)


def test_huge_scores_do_not_overflow():
    found = score(np.array([[1e30, 0.0], [-1e30, 0.0]], np.float32), np.array([0, 1]))
    assert found.loss.tolist() == [0.0, 0.0] and found.correct.all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_count_as_wrong_and_not_in_the_loss(bad):
    found = score(np.array([[bad, 0.0], [0.0, 5.0]]), np.array([0, 1]))
    tally = Tally.of(found.correct, found.loss)
    assert found.predicted.tolist() == [-1, 1]
    assert (tally.n, tally.correct, tally.loss.n) == (2, 1, 1)
    assert tally.metrics()["accuracy"].value == 0.5


def test_of_equal_scores_the_lowest_class_wins():
    assert score(np.zeros((1, 4)), np.array([2])).predicted.tolist() == [0]


def test_an_empty_tally_has_no_loss_and_knows_nothing():
    metrics = join([]).metrics()
    assert set(metrics) == {"accuracy"} and str(metrics["accuracy"]) == "0.000 [0.000, 1.000]"
