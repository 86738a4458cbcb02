"""Keys that come twice, found where rows lie in order of their key: equal ones are neighbours.

A shard tells those within it; the caller adds those that end one shard and begin the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.data.clusters.runs import plain

SHOWN = 5  # keys, and rows of each


def repeated(keys: pa.Array, place: Callable[[int], str]) -> dict[str, Any]:
    """Of rows that follow each other, as JSON.

    keys     in order, at least one
    place    of a row, for people
    returns  "count": of keys that come twice or more; "shown": [[key, places], …], the first few;
             "low", "high": the least and the greatest key, "ends": whether these are among them,
             "places": those of the first row and the last
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
        [plain(keys[start].as_py()), [place(n) for n in range(start, min(end, start + SHOWN) + 1)]]
        for start, end in zip(first[:SHOWN].tolist(), ends[:SHOWN].tolist(), strict=True)
    ]
    return {
        "count": len(first),
        "shown": shown,
        "low": plain(keys[0].as_py()),
        "high": plain(keys[size - 1].as_py()),
        "ends": [bool(same[1]), bool(same[size - 1])],
        "places": [place(0), place(size - 1)],
    }


def all_repeated(results: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[str]], int]:
    """(some keys -> places of their rows, how many such keys there are).

    results  what `repeated` told, in order of the keys
    """
    named: dict[str, list[str]] = {}
    count = 0
    for result in results:
        count += result["count"]
        for key, places in result["shown"]:
            named.setdefault(str(key), []).extend(places)
    crossing: dict[Any, list[int]] = {}  # key -> results that it ends or begins, in order
    for number, (one, other) in enumerate(pairwise(results)):
        if one["high"] == other["low"]:
            crossing.setdefault(one["high"], [number]).append(number + 1)
    for key, numbers in crossing.items():
        inside = [results[each]["ends"][each == numbers[0]] for each in numbers]
        count += 1 - sum(inside)
        if str(key) in named or len(named) < SHOWN:
            told = named.setdefault(str(key), [])
            for each, known in zip(numbers, inside, strict=True):
                if not known:
                    told.append(results[each]["places"][each == numbers[0]])
    shown = list(named)[:SHOWN]
    return {key: _few(named[key]) for key in shown}, count


def _few(places: list[str]) -> list[str]:
    return places[:SHOWN] + (["…"] if len(places) > SHOWN else [])
