"""Steps that need all rows: join, dedupe, sort, shuffle, in this order. Each is an order of row
numbers, found from the columns that it looks at; the rows themselves are moved once, into shards.

    dedupe   "key", "content", or columns: the first in order of the inputs stays
    sort     columns, "-column" for descending; missing values last; equal ones in order of inputs
    shuffle  True or a seed: the keyed permutation of `order.py`, per split
    join     `Join`: columns of at most one row of another dataset or file for each row

Sorting and joining use DuckDB, which spills to disk what memory does not hold; an order costs 8
bytes of memory per row, deduplication 20 bytes per key of some at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data.order import permute
from penstock.data.preparation.database import database

Rows = npt.NDArray[np.int64]
_SCALARS = ("number", "text", "bytes", "time")


@dataclass(frozen=True)
class Join:
    """other   a dataset reference, or raw files
    on      column of both, or {ours: theirs}
    how     "inner": rows without a match go; "left": they stay, with missing values
    suffix  of their columns whose names are taken
    """

    other: Any
    on: str | Sequence[str] | Mapping[str, str]
    how: Literal["inner", "left"] = "inner"
    suffix: str = "_right"

    @property
    def pairs(self) -> dict[str, str]:
        """ours -> theirs"""
        if isinstance(self.on, Mapping):
            return dict(self.on)
        names = [self.on] if isinstance(self.on, str) else list(self.on)
        return dict(zip(names, names, strict=True))


@dataclass(frozen=True)
class Whole:
    """What was asked for, checked by `whole_of`.

    dedupe   "" for none, "key", "content", or columns
    joined   digest of what is joined, once it was read
    """

    dedupe: str | tuple[str, ...] = ""
    sort: tuple[str, ...] = ()
    shuffle: int | None = None
    join: Join | None = None
    joined: str = ""

    def same(self) -> list[str] | None:
        """Columns whose equality makes rows equal, [] for all; None where the key tells."""
        if not self.dedupe or self.dedupe == "key":
            return None
        return [] if self.dedupe == "content" else list(self.dedupe)

    @property
    def any(self) -> bool:
        return bool(self.dedupe or self.sort or self.shuffle is not None or self.join)

    def told(self) -> dict[str, Any]:
        """As JSON; only what was asked for."""
        found: dict[str, Any] = {}
        if self.dedupe:
            found["dedupe"] = self.dedupe if isinstance(self.dedupe, str) else list(self.dedupe)
        if self.sort:
            found["sort"] = list(self.sort)
        if self.shuffle is not None:
            found["shuffle"] = self.shuffle
        if self.join is not None:
            join = {"on": self.join.pairs, "how": self.join.how, "suffix": self.join.suffix}
            found["join"] = {**join, "with": self.joined}
        return found


def whole_of(
    dedupe: bool | str | Sequence[str] | None,
    sort: str | Sequence[str] | None,
    shuffle: bool | int | None,
    join: Join | tuple[Any, Any] | None,
) -> Whole:
    """Raises BadInput for what cannot be meant."""
    if dedupe is True:
        dedupe = "key"
    if isinstance(dedupe, str) and dedupe not in ("key", "content", ""):
        dedupe = [dedupe]
    if isinstance(join, tuple) and len(join) == 2:
        join = Join(*join)
    if join is not None and (not isinstance(join, Join) or join.how not in ("inner", "left")):
        raise BadInput(f"join={join!r} is no join", 'Such as Join("labels@1", on="id").')
    names = (sort,) if isinstance(sort, str) else tuple(sort or ())
    seed = (
        None if shuffle is None or shuffle is False else int(shuffle) if shuffle is not True else 0
    )
    if names and seed is not None:
        raise BadInput("sort and shuffle were both given", "Take one of them.")
    return Whole(dedupe if isinstance(dedupe, str) else tuple(dedupe or ()), names, seed, join)


def check_columns(names: Iterable[str], kinds: Mapping[str, str], what: str) -> None:
    """Raise BadInput for a column that is not there, or that cannot be compared."""
    for name in names:
        if name not in kinds:
            raise BadInput(
                f'{what} names a column "{name}", which is not in the data',
                did_you_mean(name, kinds),
                column=name,
            )
        if kinds[name] not in _SCALARS:
            raise BadInput(
                f'{what} by "{name}", which is kept as {kinds[name]}',
                "Take a column of numbers, text, bytes or times.",
                column=name,
            )


def shuffled(rows: int, seed: int, split: str) -> Rows:
    """Places 0..rows-1 in another order: int64 [rows]."""
    if rows < 2:
        return np.arange(rows, dtype=np.int64)
    return permute(np.arange(rows, dtype=np.int64), rows, f"prepare/{seed}/{split}")


def _fill(opened: Any, name: str, tables: Iterable[tuple[pa.Table, Rows]]) -> None:
    """A table of columns c0, c1, … and n, the number of each row."""
    made = False
    for found, numbers in tables:
        names = [f"c{i}" for i in range(found.num_columns)]
        part = found.rename_columns(names).append_column("n", pa.array(numbers))
        opened.register("part", part)
        verb = f"INSERT INTO {name}" if made else f"CREATE TABLE {name} AS"
        opened.execute(f"{verb} SELECT * FROM part")
        opened.unregister("part")
        made = True


def sorted_rows(
    tables: Iterable[tuple[pa.Table, Rows]], descending: Sequence[bool], folder: Path
) -> Rows:
    """Numbers of all rows in order of their columns: int64 [rows].

    tables  the columns to sort by, and the numbers that stand for the rows, ascending in order of
            the inputs
    """
    with database(folder) as opened:
        _fill(opened, "ours", tables)
        order = ", ".join(
            f"c{i} {'DESC' if down else 'ASC'} NULLS LAST" for i, down in enumerate(descending)
        )
        return _column(opened.execute(f"SELECT n FROM ours ORDER BY {order}, n"))[0]


def joined_rows(
    ours: Iterable[tuple[pa.Table, Rows]],
    theirs: Iterable[tuple[pa.Table, Rows]],
    columns: int,
    how: str,
    folder: Path,
) -> tuple[Rows, Rows, list[Any]]:
    """(our rows, their rows (-1: none), values of ours that match several of theirs, at most 5)."""
    with database(folder) as opened:
        _fill(opened, "ours", ours)
        _fill(opened, "theirs", theirs)
        same = " AND ".join(f"ours.c{i} = theirs.c{i}" for i in range(columns))
        names = ", ".join(f"c{i}" for i in range(columns))
        twice = opened.execute(
            f"SELECT {names} FROM theirs SEMI JOIN ours ON {same} GROUP BY {names} "
            f"HAVING count(*) > 1 ORDER BY {names} LIMIT 5"
        ).fetchall()
        if twice:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), twice
        kind = "LEFT JOIN" if how == "left" else "JOIN"
        left, right = _column(
            opened.execute(
                f"SELECT ours.n, coalesce(theirs.n, -1) FROM ours {kind} theirs ON {same} "
                "ORDER BY ours.n"
            )
        )
        return left, right, []


def _column(result: Any) -> list[Rows]:
    return [np.asarray(column).astype(np.int64) for column in result.fetchnumpy().values()]
