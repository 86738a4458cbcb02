"""Quantities in words, the nearest name, and clocks that are told the time."""

from __future__ import annotations

import doctest
import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.clock import ManualClock, SystemClock
from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean, nearest
from penstock.base.units import seconds, show_bytes, show_seconds, size


@pytest.mark.parametrize(
    ("text", "value"),
    [("250ms", 0.25), ("30s", 30), (" 5 m ", 300), ("5min", 300), ("1.5h", 5400), ("2D", 172800)],
)
def test_durations(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("64MiB", 64 << 20), ("2GB", 2 * 10**9), ("1 KiB", 1024), ("0.5kb", 500)]
)
def test_sizes(text, value):
    assert size(text) == value


@given(value=st.integers(0, 10**9))
def test_numbers_are_taken_as_they_are(value):
    assert seconds(value) == size(value) == value


@pytest.mark.parametrize("text", ["", "5", "s", "5 parsecs", "-5s", "1e3s", "5s 3s", "5MiB"])
def test_what_is_no_duration_is_bad_input_with_an_example(text):
    with pytest.raises(BadInput, match="not a quantity") as caught:
        seconds(text)
    assert "30s" in caught.value.fix


@given(value=st.floats(0, 1e15))
def test_what_is_shown_is_short(value):
    assert len(show_bytes(value)) <= 12
    assert len(show_seconds(value)) <= 20


@given(known=st.lists(st.text("abcdef", min_size=3, max_size=8), min_size=1, max_size=6))
def test_a_known_word_is_its_own_nearest(known):
    for word in known:
        assert nearest(word, known) == word


def test_the_nearest_is_offered_or_all_there_are():
    assert did_you_mean("diggits", ["digits", "wine"]) == 'Did you mean "digits"?'
    assert did_you_mean("zzz", ["b", "a"]) == "There are: a, b."
    assert did_you_mean("zzz", map(str, range(20))).endswith(", ….")
    assert nearest("x", []) is None


def test_a_manual_clock_moves_only_when_told():
    clock = ManualClock(5.0)
    clock.sleep(2.0)
    clock.advance(-1.0)
    assert (clock.wall(), clock.monotonic()) == (6.0, 6.0)


def test_the_system_clock_never_goes_back():
    clock = SystemClock()
    first = clock.monotonic()
    clock.sleep(0.0)
    assert clock.monotonic() >= first
    assert clock.wall() > 1e9


@pytest.mark.parametrize("name", ["hashing", "ids", "nearest", "units"])
def test_the_examples_in_the_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(f"penstock.base.{name}"))
    assert result.attempted > 0 and result.failed == 0
