"""One unit of a preparation: some inputs through the steps, its rows into one blob.

Runs in a map worker or in the calling process. Equal arguments give equal bytes, so a unit that is
executed twice has one effect. What a unit gave is remembered by what it depends on, in the same
transaction that commits it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.base.hashing import digest_json
from penstock.blobs import Blobs
from penstock.data.columns import Column
from penstock.data.formats import Input
from penstock.data.keys import KeyFunction
from penstock.data.preparation.bad import Tally
from penstock.data.preparation.chain import Ready
from penstock.data.preparation.finishing import ROW, Work, data_of, finished
from penstock.data.preparation.fitting import fit_tables
from penstock.data.preparation.kept import put_bad, remember
from penstock.data.preparation.keying import bare, stamp_key, unit_keys
from penstock.data.preparation.places import RECORD, Places
from penstock.data.preparation.sources import source_of
from penstock.data.preparation.splitting import Rule
from penstock.data.preparation.stages import run_stages
from penstock.data.preparation.tables import column_from, read_table
from penstock.data.types import Type, type_of
from penstock.jobs.source import import_paths, load, materialise

if TYPE_CHECKING:
    from penstock.jobs.map import UnitContext

FUNCTION = "penstock.data.preparation.unit:unit"

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
             that step begins with, "had": inputs that need not run, stage for stage
             (`neighbours.py`), "keys": what each step's output is remembered by (None: the unit
             hashes its inputs first), "sampled": whether some records are run twice}, or
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
    ran = run_stages(payload, context.blobs, work, inputs, places, wanted)
    tally = ran.tally
    found = finished(context.blobs, ran.fit, work, tally, places, last=wanted is not None)
    result = {**found, **_told(context.blobs, tally, found), "unstable": ran.unstable}
    memories += ran.kept
    if wanted is None:
        kept = [bare(key) for key, keep in zip(payload["keys"], work.keep, strict=False) if keep]
        shares = {"shares": ran.own_shares(), "earlier": ran.earlier}
        value = {**result, "steps": kept, **shares}
        memories.append({"key": payload["keys"][-1], "value": value})
    else:
        memories.append(_again(payload, result))
    return {**result, "digests": digests, "memories": memories}


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


def _refitted(payload: dict[str, Any], blobs: Blobs, work: Work, places: Places) -> dict[str, Any]:
    """A unit whose columns got other types when all units were there."""
    old = payload["refit"]
    columns = [column_from(each) for each in payload["columns"]]
    tally = Tally(work.bad)
    remember(old, blobs, tally)
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
