"""The end of a unit: from its rows to keys, splits and one blob.

The blob: rows by split, in order of the input within a split, under the columns of the version and
two more (int32): `penstock.row`, where the row stood before, and `penstock.record`, of which record
of the unit it was made. A unit with columns that have no value in any row (gaps) keeps its rows as
they are until all units tell the type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.base.nearest import did_you_mean
from penstock.blobs import Blobs
from penstock.data.columns import Column, described
from penstock.data.formats import InputSource
from penstock.data.keys import KEY, KeyFunction, key_hashes, key_texts
from penstock.data.preparation.again import Twice
from penstock.data.preparation.bad import Tally
from penstock.data.preparation.chain import Numbers, Ready
from penstock.data.preparation.fitting import Fitted
from penstock.data.preparation.keyruns import put_run
from penstock.data.preparation.places import RECORD, Places
from penstock.data.preparation.screening import Screen
from penstock.data.preparation.splitting import Rule, assign, for_columns, found_names
from penstock.data.preparation.steps import entry_of
from penstock.data.preparation.tables import column_of, put_table
from penstock.data.references import Objects
from penstock.data.types import Type, mark_key

ROW = "penstock.row"  # the column of a unit's blob that says where a row stood in the unit
OURS = (ROW, RECORD)  # columns of a blob that are none of the data


@dataclass
class Work:
    """A preparation as a unit needs it.

    same  columns whose equality makes rows equal, [] for all; None where the key tells
    """

    source: InputSource
    steps: list[Ready]
    keep: list[bool]
    key: str | KeyFunction | None
    rule: Rule
    types: dict[str, Type]
    bad: str
    same: list[str] | None


def finished(
    blobs: Blobs, fit: Fitted, work: Work, tally: Tally, places: Places, last: bool = False
) -> dict[str, Any]:
    """Store a unit's rows; what of its result is about them.

    last  all units told the columns: what is not in these is not there

    "schema": digest of its columns, which its blob tells, "own": whether one of them is the key,
    "run": of the keys (`keyruns.py`), "same": of what else makes rows equal, "ballots": see
    `voting.py`
    Raises BadInput, UserCodeFailed (the key's function).
    """
    ballots = None if fit.ballots is None else [each.told() for each in fit.ballots]
    if fit.table is None or not fit.table.num_rows:
        return {**_result(None, None, [], own=True), "ballots": ballots}
    mark = len(tally.found)
    try:
        found = _finished(blobs, fit.table, fit.records, work, tally, places)
    except BadInput:
        if last or tally.policy == "fail":
            raise
        del tally.found[mark:]  # most rows of other units may be alike, and these be the odd ones
        found = _as_it_is(blobs, fit.table, fit.records, work)
    return {**found, "ballots": ballots}


def _as_it_is(blobs: Blobs, table: pa.Table, records: Numbers, work: Work) -> dict[str, Any]:
    """Rows that wait until all units tell their columns."""
    columns = [column_of(each) for each in table.schema]
    blob = put_table(blobs, table.append_column(RECORD, pa.array(records)))
    return _result(blob, table, columns, isinstance(_key_of(table, work), str))


def _key_of(table: pa.Table, work: Work) -> str | KeyFunction | None:
    return KEY if work.key is None and KEY in table.column_names else work.key


def _finished(
    blobs: Blobs, table: pa.Table, records: Numbers, work: Work, tally: Tally, places: Places
) -> dict[str, Any]:
    columns = [column_of(each) for each in table.schema]
    if any(not each.known for each in columns):  # keys and splits may depend on what is missing
        return _as_it_is(blobs, table, records, work)
    key = _key_of(table, work)
    own = isinstance(key, str)
    if not own and KEY in table.column_names:
        raise BadInput(
            f'the data has a column "{KEY}", which is the name that the key gets',
            f'Pass key="{KEY}" if it names the samples, or rename it.',
        )
    asked = Twice(key, entry_of(key)[0]) if callable(key) else key
    screen = Screen(columns, tally, places)
    table, records, keys = screen.keyed(table, records, asked)
    named = [*columns, Column(KEY, "text", "string")] if not own else columns
    named = mark_key(named, key if isinstance(key, str) else KEY)
    rule = for_columns(work.rule, named)
    table, records, keys = screen.split(table, records, keys, rule)
    if not table.num_rows:
        return _result(None, None, [], own=True)
    same = None if work.same is None else _same(table, columns, work.same)
    if not own:
        table = table.append_column(KEY, pa.array(keys, pa.string()))
    columns = named
    table = described(table, columns)
    splits = found_names(rule, table)
    hashes = key_hashes(keys)
    numbers = assign(rule, table, hashes, splits)
    order = np.argsort(numbers, kind="stable")
    counts = np.bincount(numbers, minlength=len(splits)).tolist()
    moved = table.combine_chunks() if len(splits) == 1 else table.take(pa.array(order))
    moved = moved.append_column(ROW, pa.array(order.astype(np.int32)))
    moved = moved.append_column(RECORD, pa.array(records[order]))
    found = _result(put_table(blobs, moved), table, columns, own)
    found["run"] = put_run(blobs, hashes[order])
    if same is not None:
        found["same"] = put_run(blobs, key_hashes(same)[order])
    found["splits"] = [list(each) for each in zip(splits, counts, strict=True)]
    found["refs"] += [found["run"], *_objects(table)]
    found["unstable_key"] = asked.unstable() if isinstance(asked, Twice) else ""
    return found


def _result(
    blob: str | None, table: pa.Table | None, columns: list[Column], own: bool
) -> dict[str, Any]:
    told = [asdict(each) for each in columns]
    return {
        "refs": [blob] if blob else [],
        "blob": blob,
        "rows": 0 if table is None else table.num_rows,
        "bytes": 0 if table is None else table.nbytes,
        "schema": digest_json(told) if told else "",
        "own": own,
        "run": None,
        "same": None,
        "splits": [],
    }


def data_of(table: pa.Table, result: Mapping[str, Any]) -> pa.Table:
    """The columns of the data in a unit's blob."""
    added = [KEY] if result["run"] is not None and not result["own"] else []
    return table.drop_columns([name for name in (*OURS, *added) if name in table.column_names])


def _same(table: pa.Table, columns: list[Column], names: list[str]) -> list[str]:
    """What is equal for rows that are."""
    for name in names:
        if name not in table.column_names:
            raise BadInput(
                f'dedupe names a column "{name}", which is not in the data',
                did_you_mean(name, table.column_names),
                column=name,
            )
    return key_texts(table, [c for c in columns if not names or c.name in names], None)


def _objects(table: pa.Table) -> list[str]:
    """Blobs that the rows refer to."""
    objects = Objects()
    objects.add(table)
    listed = objects.table()
    return [] if listed is None else listed["digest"].to_pylist()
