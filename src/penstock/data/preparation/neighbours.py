"""Inputs of a unit that did not change while a neighbour did: what the newest version has of them.

Its manifest says in which unit each input was; that unit's memories, one of each stage
(`stages.py`), say which records were the input's. Nothing else is remembered, so what is known here
goes when the version does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Any

from penstock.base.errors import Damaged, NotFound
from penstock.data.manifest import Manifest
from penstock.data.preparation.keying import unit_keys

if TYPE_CHECKING:
    from penstock.blobs import Blobs
    from penstock.meta.port import Reader

Named = Sequence[tuple[str, str]]


class Neighbours:
    """Of one version, for units of one chain (`keying.py`). keep: whether what each step gives is
    kept."""

    def __init__(
        self,
        blobs: Blobs,
        meta: Reader,
        chain: Mapping[str, Any],
        keep: Sequence[bool],
        old: Manifest | None,
    ) -> None:
        self._blobs, self._meta, self._chain, self._old = blobs, meta, chain, old
        self._ends = [number + 1 for number, each in enumerate(keep) if each] + [len(keep)]
        self._units: dict[str, list[tuple[str, str]]] | None = None
        self._where: dict[tuple[str, str], tuple[str, int]] = {}
        self._results: dict[str, list[dict[str, Any]]] = {}

    def had(self, inputs: Named) -> list[dict[str, Any]] | None:
        """What a unit need not run, stage for stage; None where it is nothing.

        "end": the step after the stage; "units": earlier results; "inputs": of each None, or which
        of these, its first record there and its first bad one, and its share (`kept.Share`)
        """
        stages = [self._had(inputs, stage) for stage in range(len(self._ends))]
        return stages if stages[0]["units"] else None

    def _had(self, inputs: Named, stage: int) -> dict[str, Any]:
        units: list[dict[str, Any]] = []
        numbers: dict[str, int] = {}
        found: list[list[int] | None] = []
        for place, each in enumerate(inputs):
            key, number = self._listed().get(each, ("", 0))
            results = self._of_unit(key) if key else []
            leads = place == 0 and number  # it would, and did not: see `sharing.py`
            if leads or stage >= len(results):
                found.append(None)
                continue
            result = results[stage]
            if key not in numbers:
                numbers[key] = len(units)
                units.append({k: result.get(k) for k in ("blob", "run", "own", "facts")})
            first, first_bad = result["before"][number]
            found.append([numbers[key], first, first_bad, *result["shares"][number]])
        return {"end": self._ends[stage], "units": units, "inputs": found}

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

    def _of_unit(self, key: str) -> list[dict[str, Any]]:
        """What a unit gave at each stage, up to the first of which that is not known."""
        assert self._units is not None
        if key not in self._results:
            keys = unit_keys(self._chain, self._units[key])
            *kept, _ = self._ends
            of_stages = (self._recalled(each) for each in [*(keys[n - 1] for n in kept), keys[-1]])
            self._results[key] = list(takewhile(bool, of_stages))
        return self._results[key]

    def _recalled(self, key: str) -> dict[str, Any]:
        """What is remembered and whole, and which records and bad ones stand before each input;
        {} where records are nobody's."""
        memory = self._meta.recall(key)
        if memory is None or not memory.get("shares") or memory.get("mixed"):
            return {}
        if not all(self._blobs.exists(memory[each]) for each in ("blob", "facts") if memory[each]):
            return {}
        records, _, bad = zip(*memory["shares"], strict=True)
        firsts = accumulate(bad, initial=memory["earlier"])
        before = zip(accumulate(records, initial=0), firsts, strict=True)
        return {**memory, "before": list(before)}
