"""Keys that come twice, found where rows lie in order of their key: equal ones are neighbours.

A unit tells those within it; the caller adds those that end one unit and begin the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.data.preparation.places import Places

SHOWN = 5  # keys, and rows of each


def plain(key: Any) -> Any:
    """A key as JSON has it, in the same order."""
    return key.hex() if isinstance(key, bytes) else key


def repeated(keys: pa.Array) -> dict[str, Any]:
    """Of a unit, as JSON.

    keys     in order
    returns  "count": of keys that come twice or more; "shown": [[key, numbers of rows], …], the
             first few; "ends": whether the least and the greatest are among them
    """
    size = len(keys)
    same = np.zeros(size + 1, bool)  # whether a row's key is that of the one before it
    if size > 1:
        same[1:size] = pc.equal(keys.slice(0, size - 1), keys.slice(1)).to_numpy(
            zero_copy_only=False
        )
    first = np.flatnonzero(~same[:-1] & same[1:])
    ends = np.flatnonzero(~same[1:] & same[:-1])
    shown = [
        [plain(keys[start].as_py()), list(range(start, min(end, start + SHOWN) + 1))]
        for start, end in zip(first[:SHOWN].tolist(), ends[:SHOWN].tolist(), strict=True)
    ]
    return {"count": len(first), "shown": shown, "ends": [bool(same[1]), bool(same[size - 1])]}


def all_repeated(
    results: Sequence[Mapping[str, Any]], places: Sequence[Places]
) -> tuple[dict[str, list[str]], int]:
    """(some keys -> places of their rows, how many such keys there are).

    results  of all units, in order of their keys; each with its places
    """
    named: dict[str, list[str]] = {}
    count = 0
    for result, where in zip(results, places, strict=True):
        count += result["repeated"]["count"]
        for key, rows in result["repeated"]["shown"]:
            named.setdefault(str(key), []).extend(where.of(rows))
    crossing: dict[Any, list[int]] = {}  # key -> units that it ends or begins, in order
    for number, (one, other) in enumerate(pairwise(results)):
        if one["high"] == other["low"]:
            crossing.setdefault(one["high"], [number]).append(number + 1)
    for key, units in crossing.items():
        inside = [results[each]["repeated"]["ends"][each == units[0]] for each in units]
        count += 1 - sum(inside)
        if str(key) in named or len(named) < SHOWN:
            told = named.setdefault(str(key), [])
            for each, known in zip(units, inside, strict=True):
                if not known:
                    last = results[each]["records"] - 1 if each == units[0] else 0
                    told += places[each].of([last])
    shown = list(named)[:SHOWN]
    return {key: _few(named[key]) for key in shown}, count


def _few(places: list[str]) -> list[str]:
    return places[:SHOWN] + (["…"] if len(places) > SHOWN else [])
