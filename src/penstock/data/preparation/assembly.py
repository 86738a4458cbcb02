"""The second stage: from the blobs of units to splits and full shards, in order of the inputs.

Rows never pass through the parent: it counts, finds duplicate keys from sorted runs of hashes, and
says which rows each shard has; shards are written by threads, or by a map where there is much to
write. Shards are full ones of a power of two rows (so many that one is at most 64 MiB in Arrow),
so that readers map all but the last of a split on whole pages, whatever the units were.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from penstock.base.errors import BadInput
from penstock.data.columns import Column
from penstock.data.keys import KEY
from penstock.data.preparation import shelf
from penstock.data.preparation.asking import Asked, as_dicts
from penstock.data.preparation.finishing import ROW
from penstock.data.preparation.keyruns import Run, groups
from penstock.data.preparation.places import RECORD, Places
from penstock.data.preparation.running import OnProgress, Ran
from penstock.data.preparation.storing import refuse_empty, shard_rows, shards_of, written_of
from penstock.data.shards import Written
from penstock.data.types import mark_key
from penstock.jobs.map import UnitContext, run_map

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

_SHOWN = 5
_ONE_PROCESS = 1 << 30  # bytes of rows that threads of this process write

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Laid:
    """All rows of the units, numbered through: unit after unit, split after split within one.

    units   (blob, number of its first row) of each unit that has rows
    places  of each: where its records stand
    splits  name -> slices (unit, first row in the unit, end), in order
    """

    results: list[dict[str, Any]]
    units: list[tuple[str, int]]
    places: list[Places]
    splits: dict[str, list[tuple[int, int, int]]]
    rows: int
    bytes: int

    def runs(self, stores: Stores, which: str) -> list[Run]:
        """Sorted hashes of the keys ("run"), or of what else makes rows equal ("same")."""
        return [
            Run(stores.blobs, each[which], each["rows"], start)
            for each, (_, start) in zip(self.results, self.units, strict=True)
        ]

    def whose(self, numbers: Rows) -> Rows:
        """The units of some rows."""
        starts = np.array([start for _, start in self.units], np.int64)
        return np.searchsorted(starts, numbers, side="right") - 1

    def where(self, stores: Stores, numbers: Rows) -> list[str]:
        """The places of some rows: file and line, row, or offset. Their inputs are read again."""
        record = Column(RECORD, "number", "int32")
        records = shelf.taken(stores.blobs, self.units, numbers, [record])[RECORD].to_numpy()
        whose = self.whose(numbers)
        found = np.empty(len(numbers), object)
        for unit in np.unique(whose):
            at = np.flatnonzero(whose == unit)
            found[at] = self.places[unit].of(records[at].tolist())
        return [str(each) for each in found]


def laid(asked: Asked, ran: Ran, places: Sequence[Places]) -> Laid:
    """Number the rows. Raises BadInput without any."""
    results: list[dict[str, Any]] = []
    units: list[tuple[str, int]] = []
    where: list[Places] = []
    splits: dict[str, list[tuple[int, int, int]]] = {name: [] for name in asked.rule.names}
    found: set[str] = set()
    start = 0
    for result, place in zip(ran.results, places, strict=True):
        if not result["rows"]:
            continue
        first = 0
        for name, rows in result["splits"]:
            found.add(name)
            if rows:
                splits.setdefault(name, []).append((len(units), first, first + rows))
            first += rows
        results.append(result)
        units.append((result["blob"], start))
        where.append(place)
        start += result["rows"]
    if not start:
        bad = [f"; {ran.account.bad} are bad, first {each.place}: {each.error}"
               for each in ran.account.first[:1]]  # fmt: skip
        raise BadInput(
            f"{asked.name} got no rows: its inputs gave {ran.account.records} records, of which "
            f"no step kept any{''.join(bad)}",
            "Look at the filters, and at the inputs.",
        )
    if not asked.rule.names:
        splits = {name: splits[name] for name in sorted(found)}
    size = sum(each["bytes"] for each in results)
    return Laid(results, units, where, splits, start, size)


def columns_of(asked: Asked, ran: Ran) -> tuple[list[Column], str]:
    """The columns of the version, and its key."""
    if ran.own:
        key = asked.key if isinstance(asked.key, str) else KEY
        return mark_key(ran.columns, key), key
    return mark_key([*ran.columns, Column(KEY, "text", "string")], KEY), KEY


def refuse_duplicates(
    stores: Stores,
    asked: Asked,
    whole: Laid,
    columns: Sequence[Column],
    key: str,
    kept: npt.NDArray[np.bool_] | None,
) -> None:
    """Raise BadInput that names keys which name several rows. kept: which count; None: all."""
    shown: list[Rows] = []
    count = 0
    for found in groups(whole.runs(stores, "run"), whole.rows):
        if kept is not None:
            found = [each[kept[each]] for each in found]
            found = [each for each in found if len(each) > 1]
        count += len(found)
        shown += found[: _SHOWN - len(shown)]
    if not count:
        return
    named = _told(stores, whole, columns, key, shown)
    content = asked.key is None and not any(c.name == key for c in columns[:-1])
    fix = 'Keep the first of each with dedupe="key"'
    fix += "." if content else f', or take another key than "{key}".'
    raise repeated_keys(named, count, key, fix, content)


def repeated_keys(
    named: Mapping[str, list[str]], count: int, key: str, fix: str, content: bool
) -> BadInput:
    """The error for keys that name several rows.

    named    some of them -> places of their rows
    count    of all such keys
    content  they are hashes of all that a row holds
    """
    told = "; ".join(f"{name} ({', '.join(places)})" for name, places in named.items())
    more = f" and {count - len(named)} more" if count > len(named) else ""
    what = "rows are equal in every column; their keys" if content else "keys name several rows"
    return BadInput(f"{what}: {told}{more}", fix, duplicates=dict(named), count=count)


def _told(
    stores: Stores, whole: Laid, columns: Sequence[Column], key: str, found: Sequence[Rows]
) -> dict[str, list[str]]:
    """key -> the places of its rows"""
    column = [each for each in columns if each.name == key]
    first = np.array([numbers[0] for numbers in found])
    texts = shelf.taken(stores.blobs, whole.units, first, column)[key].to_pylist()
    shown = [in_order(stores, whole, numbers[:_SHOWN]) for numbers in found]
    places = iter(whole.where(stores, np.concatenate(shown)))
    return {
        str(text): [next(places) for _ in few] + (["…"] if len(numbers) > _SHOWN else [])
        for text, few, numbers in zip(texts, shown, found, strict=True)
    }


def in_order(stores: Stores, whole: Laid, numbers: Rows) -> Rows:
    """Some rows in order of the inputs."""
    row = Column(ROW, "number", "int32")
    where = shelf.taken(stores.blobs, whole.units, numbers, [row])[ROW].to_numpy()
    return numbers[np.lexsort((where, whole.whose(numbers)))]


# shards


@dataclass(frozen=True)
class Pile:
    """The rows of one split in their order: slices of units, or an index of row numbers in a
    blob, with (right) the numbers of what is joined to each."""

    name: str
    rows: int
    slices: list[tuple[str, int, int]]
    index: str = ""
    right: str = ""

    def payloads(self, step: int) -> Iterable[dict[str, Any]]:
        """One per shard of `step` rows."""
        at, offset = 0, 0  # the slice, and how much of it is used
        for start in range(0, self.rows, step):
            rows = min(step, self.rows - start)
            more, blocks = shelf.spread(start, rows, self.rows)
            told: dict[str, Any] = {"rows": rows, "more": more, "blocks": blocks}
            if self.index:
                told["index"] = [self.index, start, start + rows + more]
                if self.right:
                    told["right"] = self.right
            else:
                told["slices"] = self._slices(at, offset, rows + more)
                at, offset = self._passed(at, offset, rows)
            yield told

    def _slices(self, at: int, offset: int, rows: int) -> list[list[Any]]:
        found: list[list[Any]] = []
        while rows:
            blob, first, end = self.slices[at]
            took = min(rows, end - first - offset)
            found.append([blob, first + offset, first + offset + took])
            rows -= took
            at, offset = at + 1, 0
        return found

    def _passed(self, at: int, offset: int, rows: int) -> tuple[int, int]:
        while rows:
            _, first, end = self.slices[at]
            took = min(rows, end - first - offset)
            rows -= took
            at, offset = (at + 1, 0) if first + offset + took == end else (at, offset + took)
        return at, offset


def piles(whole: Laid) -> list[Pile]:
    """The splits as they lie."""
    return [
        Pile(name, sum(end - first for _, first, end in slices),
             [(whole.units[unit][0], first, end) for unit, first, end in slices])
        for name, slices in whole.splits.items()
    ]  # fmt: skip


def shelve(
    stores: Stores,
    asked: Asked,
    whole: Laid,
    heaps: Sequence[Pile],
    columns: Sequence[Column],
    key: str,
    right: Mapping[str, Any] | None,
    workers: int,
    on_progress: OnProgress | None,
) -> Written:
    """Write all shards, those that are known aside, and gather what the manifest says of them.

    Raises BadInput for an empty split, and what `put` raises.
    """
    refuse_empty(heaps, whole.rows)
    shared: dict[str, Any] = {"columns": as_dicts(columns), "key": key}
    if any(each.index for each in heaps):
        shared |= {"units": [list(each) for each in whole.units], "right": right}

    def make(wanted: Mapping[str, dict[str, Any]]) -> Iterable[dict[str, Any]]:
        if workers and whole.bytes > _ONE_PROCESS and len(wanted) > 1:
            made = run_map(
                stores, name=f"{asked.name}/shards", work="prepare", function=shelf.FUNCTION,
                units=wanted, workers=min(workers, len(wanted)), shared=shared,
            )  # fmt: skip
            return (made.results[name] for name in wanted)
        return _by_threads(stores, wanted.values(), shared, workers)

    step = shard_rows(whole.rows, whole.bytes)
    found = shards_of(stores, heaps, step, shared, make, on_progress)
    return written_of(stores, asked, heaps, columns, key, found, whole.rows)


def _by_threads(
    stores: Stores, payloads: Iterable[dict[str, Any]], shared: dict[str, Any], workers: int
) -> Iterator[dict[str, Any]]:
    """Of this process, which end with the last shard."""
    context = UnitContext(stores.blobs, stores.layout, shared, 0)
    threads = max(1, min(workers, os.cpu_count() or 1))
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda payload: shelf.shard(payload, context), payloads)
