"""What is kept of a unit behind a step: its rows in order, each with the number of its record, and
its bad records; and which of them are of which input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from penstock.blobs import Blobs
from penstock.data.preparation.bad import Tally, of_rows, to_rows
from penstock.data.preparation.chain import Flow, Numbers
from penstock.data.preparation.places import RECORD, Places
from penstock.data.preparation.tables import put_facts, put_table, read_facts, read_table

_ROWS = 4096  # of a block
BAD_SCHEMA = pa.schema(
    [
        ("place", pa.string()),
        ("step", pa.string()),
        ("error", pa.string()),
        ("trace", pa.string()),
        ("raw", pa.binary()),
    ]
)


class Share(NamedTuple):
    """Of one input in its unit: records that became rows or could have, records read, and how many
    entries of bad ones, those of earlier stages apart."""

    records: int
    read: int
    bad: int


class Kept:
    """Rows of a stage, and the shares of the inputs; [] where rows may be of several at once.

    table    None where there are no rows
    records  int32 [rows], as `places.py` has them
    """

    def __init__(self, table: pa.Table | None, records: Numbers, shares: Sequence[Share]) -> None:
        self.table, self.records, self.shares = table, records, shares

    @classmethod
    def read(cls, kept: Mapping[str, Any], blobs: Blobs) -> Kept:
        """As an earlier call kept them. Raises NotFound, Damaged."""
        shares = [Share(*each) for each in kept.get("shares", ())]
        if kept["blob"] is None:
            return cls(None, np.zeros(0, np.int32), shares)
        table = read_table(blobs, kept["blob"])
        return cls(table.drop_columns([RECORD]), table[RECORD].to_numpy(), shares)

    def put(self, blobs: Blobs) -> str | None:
        """Store the rows."""
        if self.table is None:
            return None
        return put_table(blobs, self.table.append_column(RECORD, pa.array(self.records)))

    def flows(self, places: Places) -> Iterator[Flow]:
        """All rows in blocks."""
        return self._blocks(0, len(self.records), places)

    def of_input(self, number: int, first: int, places: Places) -> Iterator[Flow]:
        """The rows of one input, whose first record is `first`, in blocks of its own."""
        ends = [first, first + self.shares[number].records]
        low, high = np.searchsorted(self._plain, ends)
        return self._blocks(int(low), int(high), places)

    def _blocks(self, low: int, high: int, places: Places) -> Iterator[Flow]:
        for start in range(low, high, _ROWS):
            end = min(start + _ROWS, high)
            assert self.table is not None
            rows = self.table.slice(start, end - start)
            yield Flow(self.records[start:end], places, table=rows)

    @cached_property
    def _plain(self) -> Numbers:
        return plain(self.records)


def plain(records: Numbers) -> Numbers:
    """Numbers of records, where a batch gave other rows that of its first; see `places.py`."""
    return np.maximum(records, ~records)


def put_bad(blobs: Blobs, tally: Tally) -> str | None:
    """Store a unit's bad records; None where there are none."""
    if not tally.found:
        return None
    return put_facts(blobs, pa.Table.from_pylist(to_rows(tally.found), schema=BAD_SCHEMA))


def remember(kept: Mapping[str, Any], blobs: Blobs, tally: Tally) -> None:
    """Into the tally, what an earlier run told of a unit's records."""
    tally.records = kept["records"]
    if kept["facts"] is not None:
        tally.found = of_rows(read_facts(blobs, kept["facts"]).to_pylist())
