"""A sampled double run: a few records of some units are prepared twice, and the results compared.

What differs is said with its place; the preparation goes on, as randomness may be wanted. Only
then does `fresh=True`, or a lost unit, give other rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from penstock.data.preparation import chain
from penstock.data.preparation.bad import Tally
from penstock.data.preparation.chain import Flow, Ready

RECORDS = 3  # of a sampled unit
_ONE_IN = 32  # units


def sampled(key: str, first: bool) -> bool:
    """Whether a unit is sampled: the first, and one in 32 by their keys."""
    return first or hashlib.sha256(key.encode()).digest()[0] < 256 // _ONE_IN


def watched(steps: Sequence[Ready], flows: Iterable[Flow], unstable: list[str]) -> Iterator[Flow]:
    """The same flows; places of records that gave something else the second time are added to
    `unstable`."""
    first = True
    for flow in flows:
        if first and len(flow):
            unstable += _compared(steps, flow.part(0, min(RECORDS, len(flow))))
            first = False
        yield flow


def _compared(steps: Sequence[Ready], flow: Flow) -> list[str]:
    found = []
    for row in range(len(flow)):
        one = flow.part(row, row + 1)
        if _once(steps, one) != _once(steps, one):
            found.append(one.place(0))
    return found


def _once(steps: Sequence[Ready], flow: Flow) -> list[bytes]:
    """What the steps make of some records, as bytes; what they raise is told where it counts."""
    tally = Tally("skip")
    made = chain.run_all(steps, [_copy(flow)], tally)
    rows = [row for each in made for row in each.rows()]
    return [*map(_text, rows), *(each.error.encode() for each in tally.found)]


def _copy(flow: Flow) -> Flow:
    """Rows that the steps may write into."""
    rows = None if flow.table is not None else [dict(row) for row in flow.rows()]
    return Flow(flow.records, flow.locate, table=flow.table, rows=rows)


def _text(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"{" + b",".join(k.encode() + b":" + _text(v) for k, v in value.items()) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(map(_text, value)) + b"]"
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype.kind != "O":
            return f"{array.dtype}{array.shape}".encode() + array.tobytes()
    return repr(value).encode()
