"""Does a function give the same rows again? A second call, of which the first rows are compared.

What differs is said and noted; nothing fails, as randomness may be wanted. Only a function whose
first rows (of a table: the table) took less than a second is called again; its iterator is closed
after the first rows, so what it does later happens once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from penstock.data.keys import KeyFunction
from penstock.data.preparation.calling import called, failed
from penstock.data.rows import as_table
from penstock.jobs.source.values import text_of

ROWS = 3
SECONDS = 1.0


class Watch:
    """One call of a function. `given` is what it gave, to be read once; then `unstable` tells."""

    def __init__(self, function: Callable[..., Any], params: Mapping[str, Any], entry: str) -> None:
        self._call: Callable[[], Any] = lambda: function(**dict(params))
        self._entry = entry
        self._heads: list[str | None] = []
        began = time.perf_counter()
        given = called(function, dict(params), entry)
        self._seconds = time.perf_counter() - began
        if isinstance(given, Iterator):
            self.given: Any = self._noted(given)
        else:
            self.given = given
            with suppress(Exception):  # what is wrong with it is told by whoever takes it
                self._heads = _heads(given)

    def _noted(self, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            began = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            if len(self._heads) < ROWS:
                self._seconds += time.perf_counter() - began
                self._heads.append(_text(item))
            yield item

    def unstable(self) -> str:
        """One line where a second call gives something else, else ""."""
        if self._seconds > SECONDS:
            return ""
        try:
            again = _heads(self._call())
        except Exception as error:  # noqa: BLE001 - whatever it is, the rows are there
            return f"{self._entry}: a second call raised {type(error).__name__}: {error}"
        return "" if again == self._heads else _told(self._entry, "gave other first rows")


def _heads(given: Any) -> list[str | None]:
    """The first rows, each as one text; None for what cannot be compared."""
    if isinstance(given, Iterator):
        found = [_text(item) for item in islice(given, ROWS)]
        close: Callable[[], object] = getattr(given, "close", lambda: None)
        close()
        return found
    if isinstance(given, list | tuple):
        return [_text(item) for item in given[:ROWS]]
    table = as_table(given)
    return [] if table is None else [text_of(table.slice(0, ROWS))]


def _text(item: Any) -> str | None:
    """None also for what is no row: that is told by whoever takes it."""
    with suppress(Exception):
        table = None if isinstance(item, Mapping) else as_table(item)
        return text_of(dict(item) if table is None else table.slice(0, ROWS))
    return None


def _told(entry: str, what: str) -> str:
    return f"{entry}: a second call {what}; draw random numbers from a seed, such as a parameter"


class Twice:
    """A key function that is called twice for the first rows; `unstable` tells.

    What it raises is told as its own.
    """

    def __init__(self, key: KeyFunction, entry: str) -> None:
        self._key, self.entry = key, entry
        self._left, self._differs = ROWS, False

    def __call__(self, row: dict[str, Any]) -> Any:
        copied = dict(row) if self._left else None
        try:
            found = self._key(row)
        except Exception as error:
            raise failed(error, self.entry) from error
        if copied is not None:
            self._left -= 1
            self._compare(copied, found)
        return found

    def _compare(self, row: dict[str, Any], found: Any) -> None:
        try:
            self._differs |= bool(self._key(row) != found)
        except Exception:  # noqa: BLE001 - the first answer counts
            self._differs = True

    def unstable(self) -> str:
        """One line where it gave another key for the same row, else ""."""
        return _told(self.entry, "gave another key for the same row") if self._differs else ""
