"""Whether a demo kept all its promises, from its facts alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Facts = Mapping[str, Any]


def _recovered(facts: Facts) -> bool:
    """The killed rank's death was seen, and a step came after it."""
    took = facts["recovery_seconds"]
    return (
        facts["killed_ranks"] == 3 and facts["resumed_at"] > 0 and math.isfinite(took) and took > 0
    )


def _has_interval(facts: Facts) -> bool:
    """A value without an interval says nothing about the model."""
    found = facts["test_accuracy"]
    low, value, high = found["low"], found["value"], found["high"]
    return None not in (low, value, high) and found["n"] > 0 and 0 <= low <= value <= high <= 1


def _served(facts: Facts) -> bool:
    return (
        facts["served_requests"] == facts["test_accuracy"]["n"]
        and facts["failed_requests"] == 0
        and bool(facts["served_equals_offline"])
    )


_PROMISES: dict[str, Callable[[Facts], bool]] = {
    "no key in two splits": lambda facts: facts["keys_in_two_splits"] == 0,
    "goes on after a kill": _recovered,
    "falls back from damage": lambda facts: facts["fell_back_to"] < facts["damaged_checkpoint"],
    "no sample lost or repeated": lambda facts: (
        facts["samples_lost"] == facts["samples_repeated"] == 0
    ),
    "identical weights": lambda facts: bool(facts["bit_equal"]),
    "an interval of the accuracy": _has_interval,
    "a good model passes": lambda facts: facts["gate"] == "PASS",
    "a bad model is blocked": lambda facts: bool(facts["blocked_gate"]["blocked"]),
    "served as offline": _served,
}


def judged(facts: Facts) -> dict[str, Any]:
    """The facts with `fell_short`, the promises that were not kept, and `ok`: none."""
    missed = [promise for promise, kept in _PROMISES.items() if not kept(facts)]
    return {**facts, "fell_short": missed, "ok": not missed}


def exit_code(facts: Facts) -> int:
    """Of the process, by its verdict."""
    return 0 if facts["ok"] else 1
