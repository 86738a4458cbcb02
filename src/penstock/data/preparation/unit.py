"""One unit of a preparation: some inputs through the steps, its rows into one blob.

Runs in a map worker or in the calling process. Equal arguments give equal bytes, so a unit that is
executed twice has one effect. What a unit gave is remembered by what it depends on, in the same
transaction that commits it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.blobs import Blobs
from penstock.data.columns import Column, canonical
from penstock.data.formats import BadRecord, Block, Input
from penstock.data.keys import KeyFunction
from penstock.data.preparation import chain as steps_room
from penstock.data.preparation import stability
from penstock.data.preparation.bad import Tally, of_rows, to_rows
from penstock.data.preparation.chain import Flow, Ready
from penstock.data.preparation.finishing import ROW, Work, column_from, finished
from penstock.data.preparation.keying import bare, stamp_key, unit_keys
from penstock.data.preparation.settled import settle
from penstock.data.preparation.sources import source_of
from penstock.data.preparation.splitting import Rule
from penstock.data.preparation.tables import put_facts, put_table, read_facts, read_table
from penstock.data.rows import Blocks
from penstock.data.types import Type, type_of
from penstock.jobs.source import import_paths, load, materialise

if TYPE_CHECKING:
    from penstock.jobs.map import UnitContext

FUNCTION = "penstock.data.preparation.unit:unit"
BAD_SCHEMA = pa.schema(
    [
        ("place", pa.string()),
        ("step", pa.string()),
        ("error", pa.string()),
        ("trace", pa.string()),
        ("raw", pa.binary()),
    ]
)

_live: dict[str, Live] = {}  # by token: functions that stay in this process


@dataclass(frozen=True)
class Live:
    """What a preparation with workers=0 holds here while it runs."""

    functions: Sequence[Callable[..., Any]]
    key: KeyFunction | None


_works: dict[str, Work] = {}


def unit(payload: dict[str, Any], context: UnitContext) -> dict[str, Any]:
    """Read and prepare some inputs, or go on from the kept output of a step.

    payload  {"inputs": specs, "names": first and last, "from": step to begin with, "kept": what
             that step begins with, "keys": what each step's output is remembered by (None: the
             unit hashes its inputs first), "sampled": whether some records are run twice}, or
             {"refit": result, "columns", "keys", "of": the unit's}: its columns got other types
             when all units were there
    shared   as `Asked.shared` gives it
    returns  what `finished` says of the rows, "records": read, "bad": how many, "facts": the blob
             that holds these, "unstable": places, "digests" of the inputs where it hashed them,
             "memories"
    Raises BadInput, UserCodeFailed.
    """
    work = _work(context)
    if "refit" in payload:
        return _refitted(payload, context.blobs, work)
    memories: list[dict[str, Any]] = []
    digests = None
    if payload["keys"] is None:
        digests, payload, memories = _digested(payload, context.shared["chain"], work)
    tally = Tally(work.bad)
    writer = _Writer(context.blobs, work, tally)
    flows, first = _beginning(payload, context.blobs, work, tally)
    unstable: list[str] = []
    for start, stop in _segments(work, first):
        steps = work.steps[start:stop]
        if payload["sampled"] and steps:
            flows = stability.watched(steps, flows, unstable)
        flows = steps_room.run_all(steps, flows, tally)
        if stop < len(work.steps):
            flows, memory = _keep(flows, payload["keys"][stop - 1], context.blobs, tally, payload)
            memories += memory
    result = writer.write(flows, payload["names"])
    result["unstable"] = unstable
    kept = [bare(key) for key, keep in zip(payload["keys"], work.keep, strict=False) if keep]
    memories.append({"key": payload["keys"][-1], "value": {**result, "steps": kept}})
    return {**result, "digests": digests, "memories": memories}


def _digested(
    payload: dict[str, Any], chain: Mapping[str, Any], work: Work
) -> tuple[list[str], dict[str, Any], list[dict[str, Any]]]:
    """The digests of the inputs, which nobody knows yet, and all that follows from them."""
    inputs = [Input.from_spec(each) for each in payload["inputs"]]
    digests = [bare(work.source.digest(each)) for each in inputs]
    named = [(each.name, digest) for each, digest in zip(inputs, digests, strict=True)]
    memory = {"key": stamp_key(chain["identity"], inputs), "value": {"digests": digests}}
    return digests, {**payload, "keys": unit_keys(chain, named)}, [memory]


def _segments(work: Work, first: int) -> Iterator[tuple[int, int]]:
    """Runs of steps between which nothing is kept: (first, end)."""
    start = first
    for number in range(first, len(work.steps)):
        if work.keep[number]:
            yield start, number + 1
            start = number + 1
    if start < len(work.steps) or start == first:
        yield start, len(work.steps)


def _beginning(
    payload: dict[str, Any], blobs: Blobs, work: Work, tally: Tally
) -> tuple[Iterator[Flow], int]:
    kept = payload.get("kept")
    if kept is None:
        inputs = [Input.from_spec(each) for each in payload["inputs"]]
        found: Iterable[Block | BadRecord] = work.source.read_all(inputs)
        return steps_room.flows(found, tally), 0
    tally.records = kept["records"]
    if kept["facts"] is not None:
        tally.found = of_rows(read_facts(blobs, kept["facts"]).to_pylist())
    step = work.steps[payload["from"] - 1].name
    return _kept_flows(kept, blobs, step, payload["names"]), payload["from"]


def _kept_flows(
    kept: Mapping[str, Any], blobs: Blobs, step: str, names: Sequence[str]
) -> Iterator[Flow]:
    if kept["blob"] is None:
        return
    table = read_table(blobs, kept["blob"])
    where = between(names)
    for start in range(0, table.num_rows, 4096):
        yield Flow(
            lambda row, start=start: f"{where} (row {start + row} after {step})",  # type: ignore[misc]
            table=table.slice(start, 4096),
        )


def between(names: Sequence[str]) -> str:
    """The inputs of a unit, for people."""
    return names[0] if names[0] == names[-1] else f"{names[0]} to {names[-1]}"


def _keep(
    flows: Iterator[Flow], key: str, blobs: Blobs, tally: Tally, payload: Mapping[str, Any]
) -> tuple[Iterator[Flow], list[dict[str, Any]]]:
    """Store what a step gave, for later calls; and go on with it as later calls will."""
    found = list(flows)
    places = [(flow, row) for flow in found for row in range(len(flow))]
    tables = list(_tables(found, {}, payload["names"]))
    whole = pa.concat_tables(tables) if tables else None
    digest = None if whole is None else put_table(blobs, whole)
    value = {"blob": digest, "records": tally.records, "facts": put_bad(blobs, tally)}

    def again() -> Iterator[Flow]:
        for start in range(0, len(places), 4096):
            assert whole is not None
            yield Flow(
                lambda row, start=start: places[start + row][0].place(places[start + row][1]),  # type: ignore[misc]
                table=whole.slice(start, 4096),
            )

    return again(), [{"key": key, "value": value}]


def _tables(
    flows: Iterable[Flow], types: Mapping[str, Type], names: Sequence[str]
) -> Iterator[pa.Table]:
    """Rows or tables as tables of one schema, columns without any value included."""
    settled = settle(flows)
    if settled is None:
        return
    given, gaps = settled
    if given is None:
        yield pa.table(gaps)
        return
    at = 0
    blocks = Blocks(given, {name: each for name, each in types.items() if name not in gaps})
    try:
        for block in blocks:
            for name, values in gaps.items():
                block = block.append_column(name, values.slice(at, block.num_rows))
            at += block.num_rows
            yield block
    except BadInput as error:
        raise BadInput(f"{between(names)}: {error.what}", error.fix, **error.facts) from None


class _Writer:
    """From the rows of a unit to its blob and the facts about it."""

    def __init__(self, blobs: Blobs, work: Work, tally: Tally) -> None:
        self._blobs, self._work, self._tally = blobs, work, tally

    def write(self, flows: Iterable[Flow], names: Sequence[str]) -> dict[str, Any]:
        tables = list(_tables(flows, self._work.types, names))
        found = finished(self._blobs, pa.concat_tables(tables) if tables else None, self._work)
        facts = put_bad(self._blobs, self._tally)
        found["refs"] += [facts] if facts else []
        return {
            **found,
            "records": self._tally.records,
            "bad": len(self._tally.found),
            "facts": facts,
        }


def put_bad(blobs: Blobs, tally: Tally) -> str | None:
    """Store a unit's bad records; None where there are none."""
    if not tally.found:
        return None
    return put_facts(blobs, pa.Table.from_pylist(to_rows(tally.found), schema=BAD_SCHEMA))


def _refitted(payload: dict[str, Any], blobs: Blobs, work: Work) -> dict[str, Any]:
    """A unit whose columns got other types when all units were there."""
    old = payload["refit"]
    columns = [column_from(each) for each in payload["columns"]]
    table = read_table(blobs, old["blob"])
    if ROW in table.column_names:  # back into the order of the input
        table = table.take(pa.array(np.argsort(table[ROW].to_numpy(), kind="stable")))
    found = finished(blobs, canonical(table.select([c.name for c in columns]), columns), work)
    result = {**old, **found}
    memory = {"key": payload["keys"][-1], "value": {**result, "of": bare(payload["of"])}}
    return {**result, "memories": [memory]}


# the preparation, as this process knows it


def _work(context: UnitContext) -> Work:
    shared = context.shared
    name = shared["live"] or digest_json(shared)
    if name in _works:
        return _works[name]
    _works.clear()
    for digest in shared["paths"]:
        _importable(digest, context)
    live = _live.get(shared["live"])
    steps = [
        Ready(
            each["kind"],
            each["name"],
            live.functions[number] if live else load(each["entry"]),
            each["params"],
        )
        for number, each in enumerate(shared["steps"])
    ]
    made = Work(
        source_of(shared["source"], context.blobs),
        steps,
        [each["keep"] for each in shared["steps"]],
        _key(shared["key"], live),
        Rule.of(shared["split"]),
        {name: _type(name, told) for name, told in shared["types"].items()},
        shared["bad"],
        shared["same"],
    )
    _works[name] = made
    return made


def _key(told: Mapping[str, Any], live: Live | None) -> str | KeyFunction | None:
    if told["kind"] != "function":
        return told["column"] or None
    if live is not None:
        return live.key
    found: KeyFunction = load(told["entry"])
    return found


def _type(name: str, told: Mapping[str, Any]) -> Type:
    found = type_of(Column(name, "", "", (), told["meaning"], told["options"]))
    if found is None:
        raise AssertionError("types are checked where the preparation begins")
    return found


def _importable(digest: str, context: UnitContext) -> None:
    folder = materialise(digest, context.blobs, context.layout.sources)
    for path in reversed(import_paths(digest, context.blobs, folder)):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))


def stay(token: str, live: Live) -> None:
    """Let units of this process find their functions."""
    _live[token] = live


def leave(token: str) -> None:
    """Forget them."""
    _live.pop(token, None)
    _works.pop(token, None)
