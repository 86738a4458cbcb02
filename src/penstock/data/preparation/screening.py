"""Rows without a key or a split: found one by one where those of a unit cannot all be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import UserCodeFailed
from penstock.data.columns import Column
from penstock.data.keys import KeyFunction, key_texts, rows_of
from penstock.data.preparation.again import Twice
from penstock.data.preparation.bad import KEY, SPLIT, Tally, why
from penstock.data.preparation.chain import Numbers
from penstock.data.preparation.fitting import NoAnswer, by_halves
from penstock.data.preparation.places import Places
from penstock.data.preparation.splitting import Rule, assign, found_names

Told = tuple[pa.Table, Numbers, list[str]]


@dataclass(frozen=True)
class Screen:
    """Takes the rows of one unit: a bad one goes to the tally with its place."""

    columns: Sequence[Column]
    tally: Tally
    places: Places

    def keyed(self, table: pa.Table, records: Numbers, key: str | Twice | None) -> Told:
        """The rows that have a key, and their keys.

        Raises BadInput: the column is not there; in mode "fail" a row without a key, too, or
        UserCodeFailed where its function raised.
        """
        columns = list(self.columns)
        asked = _guarded(key) if isinstance(key, Twice) else key
        if isinstance(key, str):
            key_texts(table.slice(0, 0), columns, key)

        def ask(part: pa.Table, _first: int, _end: int) -> list[str]:
            return key_texts(part, columns, asked)

        step = f"key {key.entry.replace(':', '.')}" if isinstance(key, Twice) else KEY
        stays, answers = self._searched(table, records, step, ask)
        keys = [text for each in answers for text in each]
        return (*_only(table, records, stays), keys)

    def split(self, table: pa.Table, records: Numbers, keys: list[str], rule: Rule) -> Told:
        """The rows that have a split. Raises BadInput as `keyed` does."""
        if rule.kind == "key":
            return table, records, keys
        if rule.kind == "time":
            assign(rule, table.slice(0, 0), None, [])

        def ask(part: pa.Table, _first: int, _end: int) -> None:
            assign(rule, part, None, found_names(rule, part))

        stays, _ = self._searched(table, records, SPLIT, ask)
        kept = keys if stays is None else [keys[row] for row in stays.tolist()]
        return (*_only(table, records, stays), kept)

    def _searched(
        self, table: pa.Table, records: Numbers, step: str, ask: Callable[..., Any]
    ) -> tuple[Any, list[Any]]:
        """The rows that were answered, None for all, and the answers."""
        gone: dict[int, Exception] = {}

        def refuse(row: int, error: Exception) -> None:
            gone[row] = error
            if self.tally.policy == "fail":
                self._tell(table, records, step, gone)

        answers = by_halves(
            table.num_rows,
            lambda first, end: ask(table.slice(first, end - first), first, end),
            refuse,
        )
        self._tell(table, records, step, gone)
        stays = np.setdiff1d(np.arange(table.num_rows), list(gone)) if gone else None
        return stays, answers

    def _tell(
        self, table: pa.Table, records: Numbers, step: str, gone: Mapping[int, Exception]
    ) -> None:
        where = self.places.of(int(records[row]) for row in gone)
        for (row, error), place in zip(gone.items(), where, strict=True):
            given = next(rows_of(table.slice(row, 1), list(self.columns)))
            if isinstance(error, NoAnswer):
                self.tally.raised(place, step, error.error, given)
            else:
                self.tally.unfit(place, step.partition(" ")[0], why(error), given)


def _only(table: pa.Table, records: Numbers, rows: Any) -> tuple[pa.Table, Numbers]:
    return (table, records) if rows is None else (table.take(pa.array(rows)), records[rows])


def _guarded(key: Twice) -> KeyFunction:
    def guarded(row: dict[str, Any]) -> Any:
        try:
            return key(row)
        except UserCodeFailed as error:
            cause = error.__cause__
            raise NoAnswer(cause if isinstance(cause, Exception) else error) from error

    return guarded
