"""Which units a preparation has, what is known of each, and what would have to run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.base.errors import Damaged, NotFound
from penstock.base.hashing import digest_json
from penstock.data.manifest import Manifest
from penstock.data.preparation import stability
from penstock.data.preparation.asking import Asked
from penstock.data.preparation.cutting import Inputs, cut, digests_of
from penstock.data.preparation.keying import bare, stamp_key, unit_keys
from penstock.data.preparation.neighbours import Neighbours
from penstock.data.preparation.sources import Opened

if TYPE_CHECKING:
    from penstock.blobs import Blobs
    from penstock.jobs.stores import Stores

_SHOWN = 3  # names in a sentence

INPUTS_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("uri", pa.string()),
        ("bytes", pa.int64()),
        ("stamp", pa.string()),
        ("digest", pa.string()),
        ("unit", pa.string()),
    ]
)


@dataclass(frozen=True)
class Unit:
    """inputs and their digests; keys of each step's output and of the unit's, which names it; where
    digests are None, the unit will tell them, and its name is made of stamps

    result  what it gave, where that is known and whole
    first   the step to begin with; kept: what that step begins with, where first > 0
    had     inputs that need not run all steps, as an earlier unit had them; see `neighbours.py`
    """

    inputs: Inputs
    digests: Sequence[str] | None
    keys: Sequence[str]
    result: dict[str, Any] | None
    first: int = 0
    kept: dict[str, Any] | None = None
    had: list[dict[str, Any]] | None = None

    @property
    def key(self) -> str:
        return self.keys[-1]

    @property
    def names(self) -> list[str]:
        return [self.inputs[0].name, self.inputs[-1].name]

    @property
    def begins(self) -> list[int | None]:
        """The step that each input begins with; None where an earlier unit had it to the end."""
        if self.had is None:
            return [self.first] * len(self.inputs)
        starts = [0, *(each["end"] for each in self.had[:-1]), None]
        stages = zip(*(each["inputs"] for each in self.had), strict=True)
        return [starts[sum(known is not None for known in each)] for each in stages]

    @property
    def size(self) -> int:
        """Bytes of the inputs that run."""
        pairs = zip(self.inputs, self.begins, strict=True)
        return sum(each.size for each, begin in pairs if begin is not None)

    def payload(self, first: bool) -> dict[str, Any]:
        """For the unit's function."""
        return {
            "inputs": [each.spec() for each in self.inputs],
            "names": self.names,
            "from": self.first,
            "kept": self.kept,
            "had": self.had,
            "keys": None if self.digests is None else list(self.keys),
            "sampled": stability.sampled(self.key, first),
        }


@dataclass(frozen=True)
class Listed:
    """All inputs of a preparation, cut into units."""

    opened: Opened
    units: list[Inputs]
    digests: list[list[str]] | None

    def named(self) -> dict[str, str]:
        """Name of every input -> its digest."""
        assert self.digests is not None
        return {
            each.name: digest
            for unit, digests in zip(self.units, self.digests, strict=True)
            for each, digest in zip(unit, digests, strict=True)
        }

    @property
    def digest(self) -> str:
        """Of all inputs: names, contents, and how they are read."""
        named = [list(each) for each in self.named().items()]
        return "inputs:" + bare(digest_json([self.opened.source.identity, named]))


def listed(
    stores: Stores, opened: Opened, unit_bytes: int | None = None, defer: bool = False
) -> Listed:
    """All inputs, with their digests unless these are left to the units (`digests_of`).

    Raises BadInput: nothing there, files that differ, and what listing them raises.
    """
    units = cut(opened.source.inputs(), unit_bytes)
    return Listed(opened, units, digests_of(stores.meta, opened.source, units, defer))


def told(found: Listed, results: Sequence[Mapping[str, Any]]) -> Listed:
    """The inputs with the digests that the units told."""
    if found.digests is not None:
        return found
    return Listed(found.opened, found.units, [each["digests"] for each in results])


def planned(
    stores: Stores, asked: Asked, found: Listed, fresh: bool, old: Manifest | None
) -> list[Unit]:
    """Every unit in order, with what is known of it. old: manifest of the newest version."""
    chain = asked.chain(found.opened.source.identity)
    units = []
    if found.digests is None:
        identity = found.opened.source.identity
        return [Unit(each, None, [stamp_key(identity, each)], None) for each in found.units]
    with stores.meta.read() as meta:
        keep = [each.keep for each in asked.steps]
        neighbours = Neighbours(stores.blobs, meta, chain, keep, old)
        for inputs, digests in zip(found.units, found.digests, strict=True):
            named = [(i.name, digest) for i, digest in zip(inputs, digests, strict=True)]
            keys = unit_keys(chain, named)
            known = None if fresh else whole_memory(stores.blobs, meta.recall(keys[-1]))
            first, kept = 0, None
            if known is None and not fresh:
                for number in range(len(asked.steps) - 1, 0, -1):
                    if asked.steps[number - 1].keep:
                        kept = whole_memory(stores.blobs, meta.recall(keys[number - 1]))
                    if kept is not None:
                        first = number
                        break
            lone = known is not None or kept is not None or fresh or len(inputs) == 1
            had = None if lone else neighbours.had(named)
            units.append(Unit(inputs, digests, keys, known, first, kept, had))
    return units


def whole_memory(blobs: Blobs, memory: dict[str, Any] | None) -> dict[str, Any] | None:
    """What is remembered, where all its blobs are there."""
    if memory is None:
        return None
    named = [memory.get("blob"), memory.get("run"), memory.get("same"), memory.get("facts")]
    return memory if all(blobs.exists(each) for each in named if each) else None


def inputs_table(found: Listed, chain: Mapping[str, Any]) -> pa.Table:
    """The manifest's table "inputs"."""
    assert found.digests is not None
    rows = [
        {
            "name": each.name,
            "uri": each.uri,
            "bytes": each.size,
            "stamp": each.stamp,
            "digest": digest,
            "unit": key,
        }
        for unit, digests in zip(found.units, found.digests, strict=True)
        for key in [_named(chain, unit, digests)]
        for each, digest in zip(unit, digests, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=INPUTS_SCHEMA)


def _named(chain: Mapping[str, Any], unit: Inputs, digests: Sequence[str]) -> str:
    named = [(each.name, digest) for each, digest in zip(unit, digests, strict=True)]
    return bare(unit_keys(chain, named)[-1])


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of inputs, compared with an earlier version."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    total: int

    def lines(self) -> list[str]:
        """ "2 of 200 inputs changed (a.csv, b.csv)"."""
        found = []
        for names, what in ((self.changed, "changed"), (self.new, "new"), (self.gone, "gone")):
            if names:
                more = ", …" if len(names) > _SHOWN else ""
                shown = ", ".join(names[:_SHOWN]) + more
                verb = "" if what == "changed" else "are " if len(names) > 1 else "is "
                count = f"{len(names)} of {self.total}" if what == "changed" else f"{len(names)}"
                plural = "input" if len(names) == 1 and what != "changed" else "inputs"
                found.append(f"{count} {plural} {verb}{what} ({shown})")
        return found


def changes(found: Listed, old: Manifest | None) -> Changes:
    """What is new, changed and gone since the version of a manifest; all is new without one."""
    now = found.named()
    before: Mapping[str, str] = {}
    try:
        table = old.table("inputs") if old is not None else None
    except (NotFound, Damaged):
        table = None
    if table is not None:
        names, digests = table["name"].to_pylist(), table["digest"].to_pylist()
        before = dict(zip(names, digests, strict=True))
    return Changes(
        tuple(name for name in now if name not in before),
        tuple(name for name in now if name in before and before[name] != now[name]),
        tuple(name for name in before if name not in now),
        len(now),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What `prepare` would do, and why.

    reused   whether nothing would run
    why      as `prepare` says it
    units    of the whole; known: whose output is there; starts: step (from 0) -> how many of the
             others begin with it, as what came before is kept
    rows     of the units that are known
    inputs   new, changed, gone since the newest version
    examples units that would run: "a.csv to f.csv from map clean"
    unknown  why units cannot be counted, "" where they can
    known_as reference of the version that has the rows, where nothing would run
    """

    name: str
    reused: bool
    why: str
    units: int = 0
    known: int = 0
    starts: dict[int, int] | None = None
    rows: int = 0
    inputs: Changes | None = None
    steps: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    unknown: str = ""
    known_as: str = ""

    @property
    def to_run(self) -> int:
        return self.units - self.known

    def lines(self) -> list[str]:
        """For people."""
        if self.reused or self.unknown:
            return [self.why, *([self.unknown] if self.unknown else [])]
        found = [f"would run, because {self.why}"]
        found.append(f"{self.to_run} of {self.units} units would run, {self.known} are known")
        for step, count in sorted((self.starts or {}).items()):
            found.append(f"  {count} from {self._step(step)}")
        found += [f"  {each}" for each in self.examples]
        return found

    def _step(self, number: int) -> str:
        return self.steps[number] if number else "the beginning"


def plan_of(name: str, why: str, asked: Asked, units: Sequence[Unit], inputs: Changes) -> Plan:
    missing = [each for each in units if each.result is None]
    steps = tuple(each.name for each in asked.steps)
    return Plan(
        name=name,
        reused=False,
        why=why,
        units=len(units),
        known=len(units) - len(missing),
        starts=dict(Counter(_first(each) for each in missing)),
        rows=sum(each.result["rows"] for each in units if each.result is not None),
        inputs=inputs,
        steps=steps,
        examples=tuple(_example(each, steps) for each in missing[:_SHOWN]),
    )


def _example(unit: Unit, steps: Sequence[str]) -> str:
    first, last = unit.names
    count, start = f"{len(unit.inputs)} inputs", _first(unit)
    if unit.had is not None:
        begins = Counter(each for each in unit.begins if each is not None)
        count = f"{begins.pop(start, 0)} of {count}"
        count += "".join(f", {begins[each]} from {steps[each]}" for each in sorted(begins))
    names = first if first == last else f"{first} to {last} ({count})"
    return f"{names} from {steps[start]}" if start else names


def _first(unit: Unit) -> int:
    """The first step that runs for one of its inputs."""
    return min((each for each in unit.begins if each is not None), default=0)
