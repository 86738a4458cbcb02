"""The demo's exit code is 0 only when every promise was kept; each fact counts."""

import pytest

from penstock.cli.demo.verdict import exit_code, judged

GOOD = {
    "keys_in_two_splits": 0,
    "recovery_seconds": 0.31,
    "killed_ranks": 3,
    "resumed_at": 180,
    "damaged_checkpoint": 300,
    "fell_back_to": 280,
    "samples_lost": 0,
    "samples_repeated": 0,
    "bit_equal": True,
    "test_accuracy": {"value": 0.986, "low": 0.969, "high": 0.994, "n": 370},
    "gate": "PASS",
    "blocked_gate": {"blocked": True, "accuracy": 0.13},
    "served_requests": 370,
    "failed_requests": 0,
    "served_equals_offline": True,
}
FLIPS = [
    ("keys_in_two_splits", 1, "no key in two splits"),
    ("recovery_seconds", 0.0, "goes on after a kill"),
    ("recovery_seconds", float("nan"), "goes on after a kill"),
    ("killed_ranks", 2, "goes on after a kill"),
    ("resumed_at", 0, "goes on after a kill"),
    ("damaged_checkpoint", 280, "falls back from damage"),
    ("fell_back_to", 300, "falls back from damage"),
    ("samples_lost", 30, "no sample lost or repeated"),
    ("samples_repeated", 30, "no sample lost or repeated"),
    ("bit_equal", False, "identical weights"),
    ("test_accuracy", {**GOOD["test_accuracy"], "low": None}, "an interval of the accuracy"),
    ("test_accuracy", {**GOOD["test_accuracy"], "high": None}, "an interval of the accuracy"),
    ("test_accuracy", {**GOOD["test_accuracy"], "low": 0.99}, "an interval of the accuracy"),
    ("test_accuracy", {**GOOD["test_accuracy"], "high": 1.01}, "an interval of the accuracy"),
    ("gate", "BLOCKED", "a good model passes"),
    ("blocked_gate", {"blocked": False, "accuracy": 0.13}, "a bad model is blocked"),
    ("served_requests", 369, "served as offline"),
    ("failed_requests", 1, "served as offline"),
    ("served_equals_offline", False, "served as offline"),
]


def test_every_fact_that_is_promised_is_flipped_here():
    assert {name for name, _, _ in FLIPS} == set(GOOD)


def test_a_demo_that_kept_everything_ends_with_0():
    told = judged(GOOD)
    assert (told["fell_short"], exit_code(told)) == ([], 0)


@pytest.mark.parametrize(("name", "value", "promise"), FLIPS)
def test_one_fact_that_is_otherwise_ends_it_with_1_and_is_named(name, value, promise):
    told = judged({**GOOD, name: value})
    assert promise in told["fell_short"]
    assert exit_code(told) == 1
