"""The state of captured objects counts, whatever they are made of; what has none is refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import json
import logging
import os
import random
import re
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from penstock.base.errors import CannotTravel
from penstock.jobs.source import identity


def outside(row, s=None):
    return row, s


def make(captured):
    def inner(x):
        return captured, x

    return inner


def around(inner, by):
    @functools.wraps(inner)
    def wrapper(x):
        return inner(x) + by

    return wrapper


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a):
        self.a = a


class Both(Slots):
    def __init__(self, a, c):
        super().__init__(a)
        self.c = c


class Plain:
    def __init__(self, a):
        self.a = a


class Kept:
    """Tells itself what of it counts."""

    def __init__(self, a):
        self.a, self.lock = a, threading.Lock()

    def __getstate__(self):
        return {"a": self.a}


class Mode(enum.Enum):
    SLOW = 1
    FAST = 2


@dataclasses.dataclass(frozen=True)
class Config:
    since: datetime.date


class Temperature(np.ndarray):
    pass


def objects_of(*items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


def frame(*values):
    return pd.DataFrame({"n": range(len(values)), "v": list(values)}, index=list("abc"))


UTC = datetime.UTC
KINDS = {
    "date": lambda n: datetime.date(2024, 1, n),
    "datetime": lambda n: datetime.datetime(2024, 1, n, tzinfo=UTC),
    "timedelta": lambda n: datetime.timedelta(n),
    "time": lambda n: datetime.time(n),
    "decimal": lambda n: decimal.Decimal(n) / 10,
    "fraction": lambda n: fractions.Fraction(n, 7),
    "pattern": lambda n: re.compile("ab"[n - 1]),
    "pattern's flags": lambda n: re.compile("a", [0, re.I][n - 1]),
    "uuid": lambda n: uuid.UUID(int=n),
    "enum": lambda n: Mode(n),
    "path": lambda n: Path(f"/data/{n}"),
    "range": lambda n: range(n),
    "frozenset": lambda n: frozenset({"a", "b", str(n)}),
    "set of objects": lambda n: {Config(datetime.date(2024, 1, d)) for d in (n, 9, 11, 12)},
    "set of functions": lambda n: {outside, make, [around, frame][n - 1]},
    "bytes": lambda n: bytes([n]),
    "bytearray": lambda n: bytearray([n]),
    "deque": lambda n: collections.deque([0, n]),
    "ordered": lambda n: collections.OrderedDict(a=Plain(n)),
    "slots": lambda n: Slots(n),
    "slots in a container": lambda n: [{"k": (Slots([n]),)}],
    "slots and a dict": lambda n: Both(n, 1),
    "a dict and slots": lambda n: Both(1, n),
    "plain": lambda n: Plain(Plain(datetime.date(2024, 1, n))),
    "getstate": lambda n: Kept(n),
    "dataclass": lambda n: Config(datetime.date(2024, 1, n)),
    "exception": lambda n: ValueError(n),
    "run-time class": lambda n: type("X", (), {"a": n}),
    "run-time class of objects": lambda n: type("X", (), {"a": [Plain(n)]}),
    "object of a run-time class": lambda n: type("X", (), {"a": n})(),
    "run-time enum": lambda n: enum.Enum("E", {"A": n}).A,
    "random": lambda n: random.Random(n),
    "method of a C object": lambda n: {"a": n}.get,
    "functions in an order": lambda n: [outside, make][:: [1, -1][n - 1]],
    "the same twice": lambda n: [p := Plain(1), *[p] * n],
    "wrapped function": lambda n: around(outside, n),
    "keys": lambda n: {(outside, Slots(1)): 1, Plain: n},
    "BytesIO": lambda n: io.BytesIO(bytes([n])),
    "numpy": lambda n: np.arange(5.0) * n,
    "numpy scalar": lambda n: np.float32(n),
    "numpy of text": lambda n: np.array(["a", str(n)]),
    "numpy of times": lambda n: np.array([n], "M8[s]"),
    "numpy of objects": lambda n: objects_of("x", n),
    "numpy of slots": lambda n: objects_of("x", Slots(n)),
    "numpy with fields": lambda n: np.zeros(2, [("a", "i4"), ("bc"[n - 1], "f4")]),
    "numpy of long text": lambda n: np.array(["long " * 9 + str(n)], np.dtypes.StringDType()),
    "numpy subclass": lambda n: np.full(3, n).view(Temperature),
    "numpy not contiguous": lambda n: (np.arange(12).reshape(3, 4) * n)[:, ::2],
    "numpy masked": lambda n: np.ma.array([1, 2], mask=[False, n == 1]),
    "numpy generator": lambda n: np.random.default_rng(n),
    "pandas": lambda n: frame(1, 2, n),
    "pandas text": lambda n: frame("a", "b", str(n)),
    "pandas objects": lambda n: frame("a", 1, [n]),
    "pandas index": lambda n: pd.DataFrame({"a": [1]}, index=[n]),
    "pandas series": lambda n: pd.Series([1, n], name="s"),
    "pandas time": lambda n: pd.Timestamp(2024, 1, n),
    "pandas categories": lambda n: pd.Series(["a", "ab"[n - 1]], dtype="category"),
    "polars": lambda n: pl.DataFrame({"a": ["x", str(n)]}),
    "polars series": lambda n: pl.Series("a", [1, n]),
    "arrow array": lambda n: pa.array([1, None, n]),
    "arrow chunks": lambda n: pa.chunked_array([["a"], [str(n)]]),
    "arrow table": lambda n: pa.table({"a": [[1, n]], "b": ["x"]}),
    "arrow batch": lambda n: pa.record_batch({"a": [n]}),
    "arrow names": lambda n: pa.table({"ab"[n - 1]: [1]}),
    "arrow schema": lambda n: pa.schema([("ab"[n - 1], pa.int8())]),
    "arrow scalar": lambda n: pa.scalar(n),
}


def digests(kind, values=(1, 2)):
    """Of all the ways in which the first and the other value of a kind can be captured."""
    found = []
    for n in values:
        value = KINDS[kind](n)
        found.append(
            [
                identity(make(value)).digest,
                identity(functools.partial(outside, s=value)).digest,
                identity(functools.partial(outside, value)).digest,
                identity(Plain(value).__eq__).digest,
                identity(make(make(Plain([value])))).digest,
                identity(make({value} if kind in ("enum", "uuid", "path") else [value])).digest,
            ]
        )
    return found


def in_a_fresh_process(seed, expression):
    done = subprocess.run(
        [sys.executable, "-c", f"import json, test_state as t; print(json.dumps({expression}))"],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def elsewhere():
    everything = "{k: t.digests(k, [1]) for k in t.KINDS}"
    return in_a_fresh_process("1", everything), in_a_fresh_process("2", everything)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_value_is_seen_however_it_was_captured(kind):
    one, other = digests(kind)
    assert not set(one) & set(other)


@pytest.mark.parametrize("kind", KINDS)
def test_an_equal_value_is_the_same_in_every_process(kind, elsewhere):
    assert elsewhere[0][kind] == elsewhere[1][kind]


@pytest.mark.parametrize(
    "kind",
    [
        "file",
        "binary file",
        "socket",
        "lock",
        "event",
        "generator",
        "reader",
        "view",
        "map of a file",
    ],
)
def test_what_has_no_state_is_refused_by_name(kind, tmp_path):
    (tmp_path / "a").write_text("a")
    with (
        (tmp_path / "a").open() as file,
        (tmp_path / "a").open("rb") as binary,
        socket.socket() as plug,
    ):
        log = {
            "file": file,
            "binary file": binary,
            "socket": plug,
            "lock": threading.RLock(),
            "event": threading.Event(),
            "generator": (n for n in [1]),
            "reader": pa.table({"a": [1]}).to_reader(),
            "map of a file": map(outside, file),
            "view": memoryview(b"a"),
        }[kind]
        for function in (make(log), functools.partial(outside, s=log), make([Plain({"s": log})])):
            with pytest.raises(
                CannotTravel, match=r"captures \S.* \(an? \w+\), which cannot be"
            ) as e:
                identity(function)
            assert "open it inside the function" in e.value.fix
        with pytest.raises(CannotTravel, match=r"captures s[. ]"):
            identity(functools.partial(outside, s=log))


def test_how_rows_are_cut_into_chunks_does_not_count():
    whole = pa.table({"a": ["x", "y", None]})
    cut = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert identity(make(whole)) == identity(make(cut))
    assert identity(make(whole["a"].combine_chunks()[1:])) == identity(make(pa.array(["y", None])))


def test_a_logger_counts_by_its_name():
    assert identity(make(logging.getLogger("a"))) == identity(make(logging.getLogger("a")))
    assert identity(make(logging.getLogger("a"))) != identity(make(logging.getLogger("b")))


NOTEBOOK = """
import threading
from penstock.jobs.source import identity
LOCK = threading.Lock()
def make(v):
    def inner(x={default}):
        return v, x, LOCK
    return inner
print(identity(make({value})).digest)
"""


def test_what_a_function_without_a_file_captured_counts():
    def digest(value="'a'", default="None"):
        text = NOTEBOOK.format(value=value, default=default)
        return subprocess.check_output([sys.executable, "-c", text], text=True)

    assert digest() == digest()
    assert len({digest(), digest(value="'b'"), digest(default="1")}) == 3
