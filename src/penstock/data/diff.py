"""What differs between two versions of a dataset: rows by key, columns, drift.

Every row leaves 44 bytes: the hash of its key, and the hash of its content over the columns that
both versions keep in the same way. Equal keys come side by side when these are sorted, so memory
stays within the sorter's budget whatever the rows. Shards that both versions have in one split are
not read: their rows are equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.blobs import Blobs
from penstock.data.columns import Column
from penstock.data.expectations.distance import by_chance, edges_of, ks, psi, shares_of
from penstock.data.expectations.inference import facts_of
from penstock.data.expectations.rules import Facts
from penstock.data.manifest import Manifest
from penstock.data.reading import read_rows, read_shard
from penstock.data.row_hashes import RECORD, Records, Sorter, hash_keys, hash_rows, records, runs
from penstock.data.times import told
from penstock.data.types import describe

SHOWN = 10  # keys of each sort that a diff names
FAR = 0.2  # PSI, above which a column has drifted
_OLD, _NEW = 0, 1

_RECORD = np.dtype([*RECORD.descr, ("content_high", "<u8"), ("content_low", "<u8")])


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """change  "added", "removed" or "changed"; old and new as people read them, "" for none"""

    name: str
    change: str
    old: str = ""
    new: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the values of a column have moved.

    psi     population stability index over ten bins of the old version (or its categories)
    ks      largest difference of the cumulative distributions; None for categories
    far     whether psi is above 0.2, and above what chance gives
    facts   what changed: name -> (old, new), of nulls, not_finite, min, max, mean, std, distinct
    """

    column: str
    psi: float | None
    ks: float | None
    far: bool
    facts: dict[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Diff:
    """Counts of rows, matched by key; keys of the first of each.

    changed   same key, other content in the columns that both versions keep in the same way
    moved     same key and content, another split
    same      the rest
    keys      "added", "removed", "changed", "moved" -> the first keys, in order of their hash
    columns   added, removed and changed columns
    drift     of every column with statistics in both versions, the farthest first
    splits    name -> (rows before, rows now) where they differ
    read      shards that were read, of all in both versions
    """

    added: int
    removed: int
    changed: int
    moved: int
    same: int
    keys: dict[str, list[str]]
    columns: list[ColumnChange]
    drift: list[Drift]
    splits: dict[str, tuple[int, int]]
    read: tuple[int, int]

    @property
    def equal(self) -> bool:
        """Whether both hold the same rows in the same splits, in the same columns."""
        return not (self.added or self.removed or self.changed or self.moved or self.columns)


def diff(blobs: Blobs, old: Manifest, new: Manifest) -> Diff:
    """Compare two versions, which need not be of one dataset.

    Raises BadInput where no column can match rows, and what reading raises.
    """
    shared = [
        each
        for each in new.columns
        if each.name in old.schema
        and old.schema[each.name].storage == each.storage
        and each.name not in (old.key, new.key)
    ]
    rows = _Rows()
    skipped = Counter[tuple[str, str, int]]()
    if old.key == new.key:
        skipped = _shards(old) & _shards(new)
    with Sorter(_RECORD) as sorter:
        read = [
            _take(sorter, blobs, manifest, side, shared, skipped, rows)
            for side, manifest in ((_OLD, old), (_NEW, new))
        ]
        for part in sorter.sorted():
            rows.compare(part)
    unread = sum(count for (_, _, count), times in skipped.items() for _ in range(times))
    manifests = (old, new)
    return Diff(
        added=rows.counts["added"],
        removed=rows.counts["removed"],
        changed=rows.counts["changed"],
        moved=rows.counts["moved"],
        same=rows.counts["same"] + unread,
        keys={name: _keys(blobs, manifests, found) for name, found in rows.shown.items()},
        columns=column_changes(old, new),
        drift=drift(old, new),
        splits=_split_changes(old, new),
        read=(sum(read), len(old.shards) + len(new.shards)),
    )


def _shards(manifest: Manifest) -> Counter[tuple[str, str, int]]:
    """How often a version has a shard in a split: (split, digest, rows) -> times."""
    table = manifest.shards.table
    names = ("split", "digest", "rows")
    return Counter(zip(*(table[name].to_pylist() for name in names), strict=True))


@dataclass
class _Rows:
    """What was found so far; `shown` holds records of rows whose keys are looked up at the end."""

    counts: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[tuple[int, str, int]]] = field(
        default_factory=lambda: {name: [] for name in ("added", "removed", "changed", "moved")}
    )
    splits: list[tuple[int, str]] = field(default_factory=list)  # of a group: side and split

    def group(self, side: int, split: str) -> int:
        if (side, split) not in self.splits:
            self.splits.append((side, split))
        return self.splits.index((side, split))

    def compare(self, part: Records) -> None:
        """Take a sorted part into account: one or two records of each key."""
        ends = runs(part)
        if len(ends) < 2:
            return
        first, sizes = ends[:-1], np.diff(ends)
        sides = np.array([side for side, _ in self.splits])[part["group"]]
        single, pair = first[sizes == 1], first[sizes == 2]
        twice = np.concatenate([first[sizes > 2], pair[sides[pair] == sides[pair + 1]]])
        if len(twice):
            side, split, row = self._place(part[twice[0]])
            raise BadInput(
                f"a key names several rows of the {('old', 'new')[side]} version, among them "
                f"{split}[{row}]",
                "Rows can be matched only by a key that tells them apart.",
            )
        self._note("added", part[single[sides[single] == _NEW]])
        self._note("removed", part[single[sides[single] == _OLD]])
        one, other = part[pair], part[pair + 1]
        equal = (one["content_high"] == other["content_high"]) & (
            one["content_low"] == other["content_low"]
        )
        names = np.array([split for _, split in self.splits])
        stayed = names[one["group"]] == names[other["group"]]
        self._note("changed", other[~equal])
        self._note("moved", other[equal & ~stayed])
        self.counts["same"] += int((equal & stayed).sum())

    def _note(self, name: str, found: Records) -> None:
        self.counts[name] += len(found)
        room = SHOWN - len(self.shown[name])
        self.shown[name] += [self._place(each) for each in found[:room]]

    def _place(self, record: Any) -> tuple[int, str, int]:
        side, split = self.splits[int(record["group"])]
        return side, split, int(record["row"])


def _take(
    sorter: Sorter,
    blobs: Blobs,
    manifest: Manifest,
    side: int,
    shared: list[Column],
    skipped: Counter[tuple[str, str, int]],
    rows: _Rows,
) -> int:
    """Give the records of a version to the sorter; returns how many shards were read."""
    read, left = 0, Counter(skipped)
    names = [manifest.key, *(each.name for each in shared)]
    for split in manifest.splits:
        group, first = rows.group(side, split), 0
        for number, shard in enumerate(manifest.shards_of(split)):
            known = (split, shard.digest, shard.rows)
            if left[known] > 0:
                left[known] -= 1
            else:
                table = read_shard(blobs, manifest, split, number, names)
                sorter.add(_records(table, manifest.key, shared, group, first))
                read += 1
            first += shard.rows
    return read


def _records(table: pa.Table, key: str, shared: list[Column], group: int, first: int) -> Records:
    found = np.empty(table.num_rows, _RECORD)
    keys = records(hash_keys(table[key]), group, first)
    for name in RECORD.names or ():
        found[name] = keys[name]
    content = hash_rows(table, shared)
    found["content_high"], found["content_low"] = content["high"], content["low"]
    return found


def _keys(
    blobs: Blobs, manifests: tuple[Manifest, Manifest], places: list[tuple[int, str, int]]
) -> list[str]:
    """The keys of some rows, read where they lie."""
    return list(_read_keys(blobs, manifests, places))


def _read_keys(
    blobs: Blobs, manifests: tuple[Manifest, Manifest], places: list[tuple[int, str, int]]
) -> Iterator[str]:
    for side, split, row in places:
        manifest = manifests[side]
        table = read_rows(blobs, manifest, split, [manifest.key], row, row + 1)
        value = table[manifest.key][0].as_py()
        yield value.hex() if isinstance(value, bytes) else str(value)


def column_changes(old: Manifest, new: Manifest) -> list[ColumnChange]:
    """Columns that are not the same, those of the new version first."""
    found = []
    for name, column in new.schema.items():
        before = old.schema.get(name)
        if before is None:
            found.append(ColumnChange(name, "added", new=_told(column)))
        elif before != column:
            found.append(ColumnChange(name, "changed", _told(before), _told(column)))
    gone = [each for each in old.columns if each.name not in new.schema]
    return found + [ColumnChange(each.name, "removed", old=_told(each)) for each in gone]


def _told(column: Column) -> str:
    options = ", ".join(f"{name}={value}" for name, value in column.options.items())
    meaning = f"{column.meaning}({options})" if options else column.meaning
    return f"{describe(column)} {meaning}".strip()


def _split_changes(old: Manifest, new: Manifest) -> dict[str, tuple[int, int]]:
    names = dict.fromkeys([*old.splits, *new.splits])
    rows = {
        name: tuple(m.splits[name].rows if name in m.splits else 0 for m in (old, new))
        for name in names
    }
    return {name: (before, now) for name, (before, now) in rows.items() if before != now}


_COMPARED = ("nulls", "not_finite", "min", "max", "mean", "std", "distinct", "shortest", "longest")


def drift(old: Manifest, new: Manifest) -> list[Drift]:
    """How far the columns of two versions are apart, from their statistics alone."""
    before, now = facts_of(old), facts_of(new)
    found = [
        _drift(before[name], now[name])
        for name in now
        if name in before and before[name].column.storage == now[name].column.storage
    ]
    return sorted(found, key=lambda each: (-(each.psi or 0.0), each.column))


def _drift(before: Facts, now: Facts) -> Drift:
    old, new = before.statistics, now.statistics
    column = now.column
    facts = {
        name: (told(name, getattr(old, name), column), told(name, getattr(new, name), column))
        for name in _COMPARED
        if getattr(old, name) != getattr(new, name)
    }
    shares = _category_shares(before, now) if old.counts and new.counts else None
    apart: float | None = None
    if shares is None:
        shares = _number_shares(before, now)
        if shares is not None and before.gatherer is not None and now.gatherer is not None:
            apart = ks(before.gatherer.distribution, now.gatherer.distribution)
    if shares is None:
        return Drift(column.name, None, None, False, facts)
    rows = old.rows - old.nulls, new.rows - new.nulls
    moved = psi(*shares, *rows)
    far = moved > max(FAR, by_chance(len(shares[0]), *rows))
    return Drift(column.name, moved, apart, far, facts)


def _category_shares(before: Facts, now: Facts) -> tuple[list[float], list[float]]:
    counts = before.statistics.counts or {}, now.statistics.counts or {}
    names = sorted(counts[0].keys() | counts[1].keys())
    one, other = (
        [found.get(name, 0) / max(1, sum(found.values())) for name in names] for found in counts
    )
    return one, other


def _number_shares(before: Facts, now: Facts) -> tuple[list[float], list[float]] | None:
    if before.gatherer is None or now.gatherer is None:
        return None
    old, new = before.gatherer.distribution, now.gatherer.distribution
    edges = edges_of(old)
    if not edges or not new.total:
        return None
    return shares_of(old, edges), shares_of(new, edges)
