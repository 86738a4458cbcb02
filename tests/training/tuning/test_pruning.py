"""Who is given up: a function of curves, whoever looks and whenever."""

import math

from penstock.training.tuning.history import Trial, best_of, thinned, value_of
from penstock.training.tuning.pruning import Rule, prune


def trial(number, curve, state="complete"):
    return Trial(number, "r", f"s/{number}", state, {}, value=curve[-1][1], curve=curve)


def flat(number, value, steps=100, state="complete"):
    return trial(number, [(step, value) for step in range(1, steps + 1)], state)


def pruned_at(rule, number, curve, others):
    """The first step at which a trial is given up, its curve told point by point."""
    for end in range(1, len(curve) + 1):
        own = trial(number, curve[:end], "running")
        if prune(rule, own, curve[:end], others) is not None:
            return curve[end - 1][0]
    return None


def test_none_gives_nobody_up():
    others = [flat(number, 0.0) for number in range(9)]
    assert pruned_at(Rule("none", "minimize"), 9, [(1, math.nan), (2, 9.0)], others) is None


def test_the_median_of_five_complete_trials_counts_at_that_step():
    others = [flat(number, float(number)) for number in range(5)]  # median 2
    rule = Rule("median", "minimize")
    bad, good = [(1, 1.0), (2, 3.0), (3, 3.0)], [(1, 2.0), (2, 1.5)]
    assert pruned_at(rule, 5, bad, others) is None, "its best so far is above the median"
    assert pruned_at(rule, 5, [(1, 3.0), (2, 3.0)], others) == 1
    assert pruned_at(rule, 5, good, others) is None
    assert pruned_at(rule, 5, [(1, 3.0)], others[:4]) is None
    assert pruned_at(Rule("median", "minimize", warmup=10), 5, [(1, 3.0), (10, 3.0)], others) == 10
    assert pruned_at(Rule("median", "maximize"), 5, [(1, 1.0)], others) == 1
    running = [flat(number, 0.0, state="running") for number in range(5)]
    assert pruned_at(rule, 5, [(1, 3.0)], running) is None, "trials under way do not count"


def test_what_is_no_number_is_given_up():
    assert pruned_at(Rule("median", "minimize"), 0, [(1, 1.0), (2, math.nan)], []) == 2


def test_halving_lets_the_best_third_of_those_that_came_pass_each_rung():
    rule = Rule("halving", "minimize", warmup=10)
    others = [flat(number, float(number)) for number in range(5)]
    middling = [(step, 1.5) for step in range(1, 101)]
    assert pruned_at(rule, 5, middling, others) == 10
    assert pruned_at(rule, 5, [(step, 0.5) for step in range(1, 101)], others) is None
    assert pruned_at(rule, 5, [(step, 4.5) for step in range(1, 101)], others) == 10
    late = [(step, 0.5 if step < 30 else 9.0) for step in range(1, 101)]
    assert pruned_at(rule, 5, late, others) == 30, "the second rung is three times as far"
    assert pruned_at(rule, 0, [(10, 9.0)], []) is None, "the first one passes"


def test_rungs_count_where_nothing_is_logged_at_them():
    rule = Rule("halving", "minimize", warmup=10)
    others = [trial(0, [(7, 0.0), (14, 0.0)])]
    assert pruned_at(rule, 1, [(7, 1.0), (12, 1.0), (13, 1.0)], others) == 12


def test_halving_without_a_first_rung_waits_for_a_complete_trial():
    rule = Rule("halving", "minimize")
    assert pruned_at(rule, 1, [(1, 9.0), (50, 9.0)], [flat(0, 1.0, 54, "running")]) is None
    assert pruned_at(rule, 1, [(1, 9.0), (2, 9.0)], [flat(0, 1.0, 54)]) == 2


def test_hyperbands_brackets_begin_at_later_rungs_and_compare_among_themselves():
    rule = Rule("hyperband", "minimize", warmup=10)
    others = [flat(number, 1.0) for number in range(3)]
    bad = [(step, 9.0) for step in range(1, 101)]
    assert [pruned_at(rule, number, bad, others) for number in (3, 4, 5)] == [10, 30, 90]
    assert pruned_at(rule, 4, bad, others[:1]) is None


def test_the_value_that_counts_and_the_best_trial():
    curve = [(1, 3.0), (2, 1.0), (3, 2.0)]
    assert value_of(curve, "last", "minimize") == 2.0
    assert value_of(curve, "best", "minimize") == 1.0
    assert value_of(curve, "best", "maximize") == 3.0
    assert value_of([], "best", "maximize") is None
    trials = [flat(0, 2.0), flat(1, 1.0), flat(2, 1.0), flat(3, 0.0, state="pruned")]
    assert best_of(trials, "minimize") is trials[1]
    assert best_of(trials[3:], "minimize") is None
    assert len(thinned([(n, 0.0) for n in range(10_000)])) == 256
