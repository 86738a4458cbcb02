"""From blocks of rows to shards, by split, with what the manifest needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.blobs import Blobs
from penstock.data.at_rest import store_shard
from penstock.data.columns import Column, described
from penstock.data.content import Content
from penstock.data.keys import KEY, KeyFunction, key_texts, split_numbers
from penstock.data.manifest import Shard, Split
from penstock.data.references import Objects
from penstock.data.rows import Blocks
from penstock.data.shard_statistics import statistics_table
from penstock.data.statistics import Statistics, gatherers, sketch_table
from penstock.data.types import Types, mark_key

SHARD_ROWS = 1 << 18
SHARD_BYTES = 64 << 20  # of Arrow, before compression
SHARD_STEP = 1 << 12  # a shard that is cut by bytes gets a multiple of these rows, if it can
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Written:
    """Everything of a manifest except its lineage.

    tables  beside the shards: "statistics", "sketches", "objects" where rows refer to blobs
    """

    columns: list[Column]
    key: str
    splits: list[Split]
    shards: list[Shard]
    statistics: dict[str, Statistics]
    checks: dict[str, Any]
    tables: dict[str, pa.Table]


def write_shards(
    blobs: Blobs,
    given: Any,
    *,
    key: str | KeyFunction | None,
    splits: Mapping[str, float],
    shard_rows: int = SHARD_ROWS,
    shard_bytes: int = SHARD_BYTES,
    types: Types | None = None,
) -> Written:
    """Write what a prepare function gave.

    types  what columns mean, by name: `{"image": Image()}`
    Raises BadInput (no rows, mixed schemas, duplicate keys, an empty split) and what `put` raises.
    Until a row refers to them the shards are nobody's: hold a pin meanwhile.
    """
    blocks = Blocks(given, types)
    work: _Work | None = None
    for block in blocks:
        if work is None:
            work = _Work(blobs, blocks.columns or [], key, splits, shard_rows, shard_bytes)
        work.add(block)
    if work is None:
        raise AssertionError("blocks without rows are refused where they are made")
    return work.finish()


class _Work:
    def __init__(
        self,
        blobs: Blobs,
        columns: list[Column],
        key: str | KeyFunction | None,
        splits: Mapping[str, float],
        shard_rows: int,
        shard_bytes: int,
    ) -> None:
        names = [each.name for each in columns]
        if key is None and KEY in names:
            key = KEY
        self._given = columns
        self._key = key
        self._own_key = isinstance(key, str)
        if not self._own_key and KEY in names:
            raise BadInput(
                f'the data has a column "{KEY}", which is the name that the key gets',
                f'Pass key="{KEY}" if it names the samples, or rename it.',
            )
        self.key = key if isinstance(key, str) else KEY
        columns = columns if self._own_key else [*columns, Column(KEY, "text", "string")]
        self.columns = mark_key(columns, self.key)
        self._splits = splits
        self._keys = _Keys()
        self._statistics = gatherers(self.columns, but=self.key)
        self._objects = Objects()
        self._shards = [
            SplitWriter(blobs, self.columns, split, shard_rows, shard_bytes) for split in splits
        ]

    def add(self, block: pa.Table) -> None:
        keys = key_texts(block, self._given, self._key)
        self._keys.add(keys)
        if not self._own_key:
            block = block.append_column(KEY, pa.array(keys, pa.string()))
        block = described(block, self.columns)
        self._objects.add(block)
        for name, gatherer in self._statistics.items():
            gatherer.add(block[name])
        numbers = split_numbers(keys, self._splits)
        for number, writer in enumerate(self._shards):
            chosen = np.flatnonzero(numbers == number)
            if len(chosen):
                writer.add(block.take(pa.array(chosen)))

    def finish(self) -> Written:
        self._keys.refuse_duplicates(self.key, content=self._key is None)
        total = self._keys.rows
        for writer in self._shards:
            if not writer.rows:
                raise BadInput(
                    f'split "{writer.name}" got none of the {total} rows',
                    "Give it a larger share, leave it out, or bring more rows; "
                    'splits={"all": 1} keeps everything together.',
                    split=writer.name,
                    rows=total,
                )
            writer.flush()
        return Written(
            columns=self.columns,
            key=self.key,
            splits=[writer.split(self._splits[writer.name]) for writer in self._shards],
            shards=[shard for writer in self._shards for shard in writer.shards],
            statistics={name: each.result() for name, each in self._statistics.items()},
            checks={"keys": total, "no_duplicate_keys": True, "no_key_in_two_splits": True},
            tables=self._tables(),
        )

    def _tables(self) -> dict[str, pa.Table]:
        found = {
            "statistics": pa.concat_tables(w.statistics() for w in self._shards),
            "sketches": sketch_table(self._statistics.values()),
            "objects": self._objects.table(),
        }
        return {name: table for name, table in found.items() if table is not None}


class _Keys:
    """Every key seen, with its first row: some 150 bytes of memory each."""

    def __init__(self) -> None:
        self.rows = 0
        self._first: dict[str, int] = {}
        self._twice: dict[str, list[int]] = {}

    def add(self, keys: list[str]) -> None:
        for key in keys:
            first = self._first.setdefault(key, self.rows)
            if first != self.rows:
                self._twice.setdefault(key, [first]).append(self.rows)
            self.rows += 1

    def refuse_duplicates(self, column: str, *, content: bool) -> None:
        """Distinct keys, each put into a split by itself alone, are in one split only."""
        if not self._twice:
            return
        shown = dict(list(self._twice.items())[:_SHOWN])
        told = [f"{key} (rows {_numbers(rows)})" for key, rows in shown.items()]
        more = f" and {len(self._twice) - _SHOWN} more" if len(self._twice) > _SHOWN else ""
        what = "rows are equal in every column; their keys" if content else "keys name several rows"
        raise BadInput(
            f"{what}: {'; '.join(told)}{more}",
            "Drop the repeated rows, or name samples by a column that tells them apart: key=…."
            if content
            else f'Drop the repeated rows, or take another key than "{column}".',
            duplicates={key: rows[:_SHOWN] for key, rows in shown.items()},
            count=len(self._twice),
        )


def _numbers(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:_SHOWN])) + (", …" if len(rows) > _SHOWN else "")


class SplitWriter:
    """Gathers the rows of one split and puts a shard whenever one is full.

    shard_rows, shard_bytes  whichever is reached first; bytes are those of Arrow in memory

    Feed `add`, then `flush`; then ask for `shards`, `split` and `statistics`.
    """

    def __init__(
        self, blobs: Blobs, columns: list[Column], name: str, shard_rows: int, shard_bytes: int
    ) -> None:
        self.name = name
        self.rows = 0
        self.shards: list[Shard] = []
        self._blobs = blobs
        self._columns = columns
        self._limits = shard_rows, shard_bytes
        self._content = Content(columns)
        self._statistics: list[pa.Table] = []
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0

    def add(self, table: pa.Table) -> None:
        """These rows come next."""
        self._content.add(table)
        self.rows += table.num_rows
        while table.num_rows:
            room = self._limits[0] - self._waiting_rows
            piece, table = table.slice(0, room), table.slice(room)
            self._wait(piece)
            if self._waiting_rows >= self._limits[0]:
                self._put(self._waiting_rows)
            elif self._waiting_bytes >= self._limits[1]:
                self._put(self._waiting_rows // SHARD_STEP * SHARD_STEP or self._waiting_rows)

    def flush(self) -> None:
        """Put what waits as a shard; nothing when nothing waits."""
        if self._waiting_rows:
            self._put(self._waiting_rows)

    def _wait(self, piece: pa.Table) -> None:
        if piece.num_rows:
            self._waiting.append(piece)
            self._waiting_rows += piece.num_rows
            self._waiting_bytes += piece.nbytes

    def _put(self, rows: int) -> None:
        """The first `rows` of what waits become a shard."""
        table = pa.concat_tables(self._waiting)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        self._wait(table.slice(rows))
        table = table.slice(0, rows)
        number = len(self.shards)
        stored = store_shard(self._blobs, table, self._columns)
        self._statistics.append(statistics_table(table, self._columns, self.name, number))
        self.shards.append(
            Shard(self.name, number, stored.digest, rows, stored.bytes, stored.format)
        )

    def split(self, share: float) -> Split:
        """What the manifest says of it."""
        size = sum(shard.bytes for shard in self.shards)
        return Split(self.name, self.rows, len(self.shards), size, share, self._content.digest)

    def statistics(self) -> pa.Table:
        """A row per shard and column."""
        return pa.concat_tables(self._statistics).combine_chunks()
