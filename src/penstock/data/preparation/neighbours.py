"""Inputs of a unit that did not change while a neighbour did: what the newest version has of them.

Its manifest says in which unit each input was; that unit's memory says which records were the
input's. Nothing else is remembered, so what is known here goes when the version does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from penstock.base.errors import Damaged, NotFound
from penstock.base.hashing import PREFIX
from penstock.data.manifest import Manifest
from penstock.data.preparation.keying import bare, unit_keys

if TYPE_CHECKING:
    from penstock.blobs import Blobs
    from penstock.meta.port import Reader

Named = Sequence[tuple[str, str]]


class Neighbours:
    """Of one version, for units of one chain (`keying.py`)."""

    def __init__(
        self, blobs: Blobs, meta: Reader, chain: Mapping[str, Any], old: Manifest | None
    ) -> None:
        self._blobs, self._meta, self._chain, self._old = blobs, meta, chain, old
        self._units: dict[str, list[tuple[str, str]]] | None = None
        self._where: dict[tuple[str, str], tuple[str, int]] = {}
        self._results: dict[str, dict[str, Any] | None] = {}

    def had(self, inputs: Named) -> dict[str, Any] | None:
        """What a unit need not run; None where it is nothing.

        "units": earlier results; "inputs": of each None, or which of these, its first record
        there and its first bad one, and its share (`sharing.Share`)
        """
        units: list[dict[str, Any]] = []
        numbers: dict[str, int] = {}
        found: list[list[int] | None] = []
        for place, each in enumerate(inputs):
            key, number = self._listed().get(each, ("", 0))
            result = self._result(key) if key else None
            if result is None or (place == 0 and number):  # the first row leads: see `sharing.py`
                found.append(None)
                continue
            if key not in numbers:
                numbers[key] = len(units)
                units.append({k: result[k] for k in ("blob", "run", "own", "facts")})
            first, first_bad = result["before"][number]
            found.append([numbers[key], first, first_bad, *result["shares"][number]])
        return {"units": units, "inputs": found} if units else None

    def _listed(self) -> Mapping[tuple[str, str], tuple[str, int]]:
        """(name, digest) of every input -> its unit, and which input of that it is."""
        if self._units is None:
            self._units = {}
            for name, digest, unit in self._rows():
                named = self._units.setdefault(unit, [])
                self._where[name, digest] = unit, len(named)
                named.append((name, digest))
        return self._where

    def _rows(self) -> list[tuple[str, str, str]]:
        try:
            table = self._old.table("inputs") if self._old is not None else None
        except (NotFound, Damaged):
            table = None
        if table is None or "unit" not in table.column_names:
            return []
        columns = (table[name].to_pylist() for name in ("name", "digest", "unit"))
        return list(zip(*columns, strict=True))

    def _result(self, key: str) -> dict[str, Any] | None:
        """What a unit gave, where its code, key, splits and types were those of now."""
        if key not in self._results:
            self._results[key] = self._recalled(key)
        return self._results[key]

    def _recalled(self, key: str) -> dict[str, Any] | None:
        assert self._units is not None
        if bare(unit_keys(self._chain, self._units[key])[-1]) != key:
            return None
        memory = self._meta.recall(PREFIX + key)
        if memory is None or not memory.get("shares"):
            return None
        if not all(self._blobs.exists(memory[each]) for each in ("blob", "facts") if memory[each]):
            return None
        records, _, bad = zip(*memory["shares"], strict=True)
        before = zip(accumulate(records, initial=0), accumulate(bad, initial=0), strict=True)
        return {**memory, "before": list(before)}
