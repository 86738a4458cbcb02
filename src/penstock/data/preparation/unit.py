"""One unit of a preparation: some inputs through the steps, its rows into one blob.

Runs in a map worker or in the calling process. Equal arguments give equal bytes, so a unit that is
executed twice has one effect. What a unit gave is remembered by what it depends on, in the same
transaction that commits it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import Damaged, NotFound
from penstock.base.hashing import digest_json
from penstock.blobs import Blobs
from penstock.data.columns import Column
from penstock.data.formats import BadRecord, Block, Input
from penstock.data.keys import KeyFunction
from penstock.data.preparation import chain as steps_room
from penstock.data.preparation import sharing, stability
from penstock.data.preparation.bad import Tally, of_rows, to_rows
from penstock.data.preparation.chain import Flow, Numbers, Ready
from penstock.data.preparation.finishing import ROW, Work, data_of, finished
from penstock.data.preparation.fitting import (
    Fitted,
    Misfit,
    alike,
    fit_tables,
    fitted,
    pieces_of,
    tell,
)
from penstock.data.preparation.keying import bare, stamp_key, unit_keys
from penstock.data.preparation.places import RECORD, Places
from penstock.data.preparation.sources import source_of
from penstock.data.preparation.splitting import Rule
from penstock.data.preparation.tables import (
    column_from,
    put_facts,
    put_table,
    read_facts,
    read_table,
)
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
             that step begins with, "had": inputs that need not run (`neighbours.py`),
             "keys": what each step's output is remembered by (None: the unit hashes its inputs
             first), "sampled": whether some records are run twice}, or
             {"refit": result, "columns", "again": what that is remembered by, "of": the unit}: its
             columns got other types when all units were there; without "refit" it runs again, as
             other rows than it took fit these
    shared   as `Asked.shared` gives it
    returns  what `finished` says of the rows, "records": read, "bad": how many, "facts": the blob
             that holds these, "unstable": places, "digests" of the inputs where it hashed them,
             "memories"
    Raises BadInput, UserCodeFailed.
    """
    work = _work(context)
    inputs = [Input.from_spec(each) for each in payload["inputs"]]
    places = Places(work.source, inputs)
    if "refit" in payload:
        return _refitted(payload, context.blobs, work, places)
    memories: list[dict[str, Any]] = []
    digests = None
    if payload["keys"] is None:
        digests, payload, memories = _digested(payload, context.shared["chain"], work)
    wanted = [column_from(each) for each in payload["columns"]] if "columns" in payload else None
    if sharing.possible(work, inputs):
        ran = _shared(payload, context.blobs, work, inputs, places, wanted)
    else:
        ran = _streamed(payload, context.blobs, work, places, wanted)
    tally = ran.tally
    found = finished(context.blobs, ran.fit, work, tally, places, last=wanted is not None)
    result = {**found, **_told(context.blobs, tally, found), "unstable": ran.unstable}
    memories += ran.kept
    if wanted is None:
        kept = [bare(key) for key, keep in zip(payload["keys"], work.keep, strict=False) if keep]
        value = {**result, "steps": kept, "shares": ran.own_shares()}
        memories.append({"key": payload["keys"][-1], "value": value})
    else:
        memories.append(_again(payload, result))
    return {**result, "digests": digests, "memories": memories}


@dataclass
class _Ran:
    """The rows of a unit's last step. kept: memories of the steps before; shares: `sharing.py`"""

    fit: Fitted
    tally: Tally
    unstable: list[str]
    kept: list[dict[str, Any]] = field(default_factory=list)
    shares: list[sharing.Share] = field(default_factory=list)

    def own_shares(self) -> list[sharing.Share]:
        """None where a record was bad only among those of other inputs."""
        own = sum(each.bad for each in self.shares) == len(self.tally.found)
        return self.shares if own and self.fit.ballots is None else []


def _shared(
    payload: Mapping[str, Any],
    blobs: Blobs,
    work: Work,
    inputs: Sequence[Input],
    places: Places,
    wanted: list[Column] | None,
) -> _Ran:
    """Input by input; those that stayed are taken from before, where their rows allow it."""

    def ran(known: Sequence[sharing.Known | None]) -> _Ran | None:
        shared = sharing.Shared(blobs, work, inputs, Tally(work.bad), places)
        pieces = shared.pieces(known, payload["sampled"])
        if pieces is None:
            return None
        fit = fit_tables(pieces, shared.misfits, shared.tally, places, wanted)
        return _Ran(fit, shared.tally, shared.unstable, shares=shared.shares)

    found = None
    if wanted is None and payload["had"] is not None:
        with suppress(Damaged, NotFound):  # what is lost of before is made again
            found = ran(sharing.known_of(payload["had"]))
    found = found or ran([None] * len(inputs))
    assert found is not None  # where all ran there is nothing to doubt
    return found


def _streamed(
    payload: dict[str, Any],
    blobs: Blobs,
    work: Work,
    places: Places,
    wanted: list[Column] | None,
) -> _Ran:
    """All inputs through one step after the other, from the first that is not known."""
    tally = Tally(work.bad)
    flows, first = _beginning(payload, blobs, work, tally, places)
    unstable: list[str] = []
    memories: list[dict[str, Any]] = []
    for start, stop in _segments(work, first):
        steps = work.steps[start:stop]
        if payload["sampled"] and steps:
            flows = stability.watched(steps, flows, unstable)
        flows = steps_room.run_all(steps, flows, tally)
        if stop < len(work.steps):
            flows, memory = _keep(flows, payload["keys"][stop - 1], blobs, tally, places)
            memories += memory
    fit = fitted(flows, work.types, tally, places, wanted)
    return _Ran(fit, tally, unstable, memories)


def _told(blobs: Blobs, tally: Tally, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the tally says of a unit."""
    facts = put_bad(blobs, tally)
    return {
        "refs": found["refs"] + ([facts] if facts else []),
        "records": tally.records,
        "bad": len(tally.found),
        "facts": facts,
    }


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
    payload: dict[str, Any], blobs: Blobs, work: Work, tally: Tally, places: Places
) -> tuple[Iterator[Flow], int]:
    kept = payload.get("kept")
    if kept is None:
        inputs = [Input.from_spec(each) for each in payload["inputs"]]
        read = work.source.read_all if work.bad == "fail" else work.source.read_on
        found: Iterable[Block | BadRecord] = read(inputs)
        return steps_room.flows(found, tally), 0
    _remembered(kept, blobs, tally)
    return _kept_flows(kept, blobs, places), payload["from"]


def _remembered(kept: Mapping[str, Any], blobs: Blobs, tally: Tally) -> None:
    """What an earlier run told of a unit's records."""
    tally.records = kept["records"]
    if kept["facts"] is not None:
        tally.found = of_rows(read_facts(blobs, kept["facts"]).to_pylist())


def _kept_flows(kept: Mapping[str, Any], blobs: Blobs, places: Places) -> Iterator[Flow]:
    if kept["blob"] is None:
        return
    table = read_table(blobs, kept["blob"])
    yield from _in_blocks(table.drop_columns([RECORD]), table[RECORD].to_numpy(), places)


def _in_blocks(table: pa.Table, records: Numbers, places: Places) -> Iterator[Flow]:
    for start in range(0, table.num_rows, 4096):
        yield Flow(records[start : start + 4096], places, table=table.slice(start, 4096))


def _keep(
    flows: Iterator[Flow], key: str, blobs: Blobs, tally: Tally, places: Places
) -> tuple[Iterator[Flow], list[dict[str, Any]]]:
    """Store what a step gave, for later calls; and go on with it as later calls will.

    Rows that do not have one schema are not kept: whatever the later steps make of them, all rows
    decide at the end which fit.
    """
    misfits: list[Misfit] = []
    pieces = list(pieces_of(flows, {}, misfits, tally, places))
    tell(misfits, tally, places)
    whole = alike(pieces)
    if whole is None and pieces:
        return (Flow(each, places, table=table) for table, each in pieces), []
    value = {"blob": None, "records": tally.records, "facts": put_bad(blobs, tally)}
    memory = [{"key": key, "value": value}]
    if whole is None:
        return iter(()), memory
    table, records = whole
    value["blob"] = put_table(blobs, table.append_column(RECORD, pa.array(records)))
    return _in_blocks(table, records, places), memory


def put_bad(blobs: Blobs, tally: Tally) -> str | None:
    """Store a unit's bad records; None where there are none."""
    if not tally.found:
        return None
    return put_facts(blobs, pa.Table.from_pylist(to_rows(tally.found), schema=BAD_SCHEMA))


def _refitted(payload: dict[str, Any], blobs: Blobs, work: Work, places: Places) -> dict[str, Any]:
    """A unit whose columns got other types when all units were there."""
    old = payload["refit"]
    columns = [column_from(each) for each in payload["columns"]]
    tally = Tally(work.bad)
    _remembered(old, blobs, tally)
    table = read_table(blobs, old["blob"])
    if ROW in table.column_names:  # back into the order of the input
        table = table.take(pa.array(np.argsort(table[ROW].to_numpy(), kind="stable")))
    fit = fit_tables([(data_of(table, old), table[RECORD].to_numpy())], [], tally, places, columns)
    found = finished(blobs, fit, work, tally, places, last=True)
    result = {**old, **found, **_told(blobs, tally, found), "ballots": old["ballots"]}
    return {**result, "memories": [_again(payload, result)]}


def _again(payload: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """What a unit is remembered by whose columns all units told."""
    return {"key": payload["again"], "value": {**result, "of": bare(payload["of"])}}


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
