"""What a function captured counts: closures, defaults, partials, bound methods, objects."""

from __future__ import annotations

import dataclasses
import functools
import os

import pytest

from penstock.jobs.source import difference, identity


def outside(value):
    return value


def make(captured, default=1):
    def inner(x=default):
        return outside(captured), x

    return inner


def test_captured_values_and_defaults_count():
    base = identity(make(1))
    assert identity(make(1)) == base
    assert len({base.digest, identity(make(2)).digest, identity(make(1, 2)).digest}) == 3
    assert any(part.endswith(".outside") for part in base.parts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({1, 2}, {1, 3}),
        ({"a": [1, 2]}, {"a": [1, 3]}),
        (make(1), make(2)),
        (lambda: 1, lambda: 2),
        (os.path.join, os.path.split),
    ],
)
def test_captured_values_of_many_kinds_are_told_apart(one, other):
    assert identity(make(one)).digest == identity(make(one)).digest
    assert identity(make(one)).digest != identity(make(other)).digest


def test_captured_circles_end():
    circle: list[object] = [object()]
    circle.append({"back": circle, "self": Scaler(circle)})
    assert identity(make(circle)).digest == identity(make(circle)).digest


def test_captured_arrays_count_by_content():
    import numpy as np

    digests = {identity(make(np.arange(4, dtype=d) + o)).digest for d in "if" for o in (0, 1)}
    assert len(digests) == 4
    assert identity(make(np.arange(4))) == identity(make(np.arange(4)))


def test_a_partial_counts_with_its_arguments():
    one, other = (identity(functools.partial(outside, n)).digest for n in (1, 2))
    assert one != other
    assert identity(functools.partial(outside, 1)).digest == one


class Scaler:
    def __init__(self, by):
        self.by = by

    def scale(self, x):
        return x * self.by


def test_a_bound_method_counts_with_the_state_of_its_object():
    assert identity(Scaler(1).scale) == identity(Scaler(1).scale)
    assert identity(Scaler(1).scale).digest != identity(Scaler(2).scale).digest


@dataclasses.dataclass(slots=True)
class Config:
    width: int = 1

    def doubled(self):
        return self.width * 2


def test_a_captured_dataclass_counts_with_its_values_and_its_class():
    parts = identity(make(Config(1))).parts
    assert identity(make(Config(1))).parts == parts
    assert any(name.endswith(".Config") for name in parts)
    (line,) = difference(parts, identity(make(Config(2))).parts)
    assert line.endswith("inner captured captured changed")
    assert identity(Config(1).doubled) != identity(Config(2).doubled)


def test_a_captured_module_counts_by_its_version():
    import numpy

    assert identity(make(numpy)).parts["package numpy"] == numpy.__version__
