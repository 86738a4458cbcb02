"""The verb: a new version of a dataset, or the one that the same call made.

Remembered by content: inputs, code of every step, parameters, key, splits. The version, its
references, its memory and its event are one transaction; until then nothing is visible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput
from penstock.base.ids import new_id
from penstock.data.clusters.given import cluster_rows, refuse_options
from penstock.data.keys import KeyFunction
from penstock.data.manifest import Manifest
from penstock.data.preparation import from_function
from penstock.data.preparation.asking import Asked, asked_of
from penstock.data.preparation.commit import commit
from penstock.data.preparation.making import Made, make
from penstock.data.preparation.past import Past, Prepared, Request, reason, reuse
from penstock.data.preparation.planning import (
    Listed,
    Plan,
    Unit,
    changes,
    listed,
    plan_of,
    planned,
)
from penstock.data.preparation.running import OnProgress
from penstock.data.preparation.sources import known_rows, opened, spooled
from penstock.data.preparation.splitting import ByTime
from penstock.data.preparation.steps import (
    Function,
    check_params,
    entry_of,
    make_steps,
    names_of,
    refuse_unused,
)
from penstock.data.preparation.whole import Join, whole_of
from penstock.data.types import Types
from penstock.jobs.source import identity
from penstock.jobs.stores import pinned
from penstock.records.references import check_name

if TYPE_CHECKING:
    from penstock.data.expectations import Expectations
    from penstock.jobs.stores import Stores

Splits = Mapping[str, float] | ByTime | str


def prepare(
    stores: Stores,
    name: str,
    sources: Any,
    *,
    map: Function | None = None,
    filter: Function | None = None,
    flat_map: Function | None = None,
    batch: Function | None = None,
    steps: Sequence[Any] | None = None,
    key: str | KeyFunction | None = None,
    splits: Splits | None = None,
    by: str | None = None,
    types: Types | None = None,
    params: Mapping[str, Any] | None = None,
    bad: str = "fail",
    bad_share: float = 0.01,
    dedupe: bool | str | Sequence[str] | None = None,
    sort: str | Sequence[str] | None = None,
    shuffle: bool | int | None = None,
    join: Join | tuple[Any, Any] | None = None,
    expect: str | Path | Expectations | None = None,
    workers: int | None = None,
    unit_bytes: int | None = None,
    fresh: bool = False,
    on_progress: OnProgress | None = None,
    producer: str | None = None,
) -> Prepared:
    """Make a version of dataset `name`, or find the one that the same call made.

    sources   raw files (what `open_source` takes), a dataset reference ("raw@2:all"), or a
              function that gives rows (see `rows.py`), called with `params` in this process; or a
              Dataset of Ray's or a DataFrame of Spark's, with name, key, splits, by, types alone
    map, filter, flat_map, batch
              a step of each kind, in this order; `steps`: any number in any (see `steps.py`)
    key       column that names a sample, or a function of a row; default: the column "key" where
              there is one, else a hash of the row's content
    splits    shares, `ByTime`, or a column that says it; by: column whose rows stay together (see
              `splitting.py`); default: train 0.7, validation 0.1, test 0.2 of the keys
    types     what columns mean, by name: {"image": Image()}
    params    JSON-able; functions get those that they have arguments for
    bad       what becomes of records that cannot be read or prepared: "fail", "skip" (up to
              `bad_share` of all), or "quarantine" (into the dataset NAME-quarantine)
    dedupe, sort, shuffle, join
              over all rows (see `whole.py`)
    expect    expectations or their file: warn, set rows aside, or refuse the version
    workers   processes; 0: in this one; default: one per core, none for little work
    unit_bytes  up to which small files share a unit; 0: a unit for each file; default 4 MiB
    fresh     run it though it is known
    on_progress  called with `Progress`
    producer  idempotency key of the caller, e.g. "run/ID"; the same one never makes two versions

    Raises BadInput, UserCodeFailed, CannotTravel, Refused, RunFailed, MissingExtra, DiskFull,
    ReadOnly, Unavailable; nothing is published then, and units that are done are not run again.
    """
    call = _Call(stores, name, sources, fresh, producer, on_progress)
    single = {"map": map, "filter": filter, "flat_map": flat_map, "batch": batch}
    whole = whole_of(dedupe, sort, shuffle, join)
    if (rows := cluster_rows(stores, sources)) is not None:
        from penstock.data.clusters.version import make_version

        asked_for = {"steps": steps, "params": params, "expect": expect, "workers": workers,
                     "unit_bytes": unit_bytes, "dedupe": dedupe, "sort": sort, "shuffle": shuffle,
                     "join": join, "producer": producer, **single}  # fmt: skip
        refuse_options(rows, asked_for, bad)
        return make_version(
            stores, name, rows, key=key, splits=splits, by=by, types=types, on_progress=on_progress
        )
    plain = steps is None and not any(single.values()) and by is None and not whole.any
    rows_only = plain and not isinstance(splits, ByTime | str) and expect is None and bad == "fail"
    if callable(sources) and rows_only and workers is None and not _keeps_episodes(types):
        return _from_function(call, key, splits, params, types)
    values = check_params(params)
    made = make_steps(single, steps, values)
    asked = asked_of(name, made, key, splits, by, types, values, whole, bad, bad_share, workers,
                     unit_bytes, expect)  # fmt: skip
    return _from_sources(call, asked)


@dataclass(frozen=True)
class _Call:
    stores: Stores
    name: str
    sources: Any
    fresh: bool
    producer: str | None
    on_progress: OnProgress | None

    def produced(self) -> Prepared | None:
        """What the same producer made."""
        if self.producer is None:
            return None
        with self.stores.meta.read() as meta:
            made = meta.find_produced("dataset", self.producer)
        if made is None:
            return None
        return Prepared(made, True, f"reused {made.reference}, because {self.producer} made it")


def _keeps_episodes(types: Types | None) -> bool:
    return any(getattr(each, "meaning", "") == "episode" for each in (types or {}).values())


def _from_function(
    call: _Call,
    key: str | KeyFunction | None,
    splits: Any,
    params: Mapping[str, Any] | None,
    types: Types | None,
) -> Prepared:
    """A function's rows, streamed into shards as they come."""
    asked = from_function.request(call.name, call.sources, key, splits, params, types)
    if (made := call.produced()) is not None:
        return made
    past = Past.of(call.stores, asked)
    if past.whole and not call.fresh:
        return reuse(call.stores, asked, past, call.producer)

    def write() -> Made:
        written = from_function.write(call.stores.blobs, call.sources, asked, key, types)
        return Made(asked, written[0], lines=written[1])

    return _run(call, past, reason(asked, past, call.fresh), write)


def _from_sources(call: _Call, asked: Asked) -> Prepared:
    """Inputs through steps, as units."""
    check_name(call.name, "dataset name")
    if (made := call.produced()) is not None:
        return made
    with pinned(call.stores.meta):
        found, theirs, asked = _listed(call.stores, asked, call.sources, call.fresh, defer=True)

        def request(found: Listed) -> Request:
            return _request(asked, found, call.sources)

        if found.digests is None:  # never seen: there is nothing that it could be compared with
            past, why = Past(None, None), f"{call.name} has no version yet"
        else:
            past = Past.of(call.stores, request(found))
            if past.whole and not call.fresh:
                return reuse(call.stores, request(found), past, call.producer)
            why = reason(request(found), past, call.fresh)

        def write() -> Made:
            units = planned(call.stores, asked, found, call.fresh, past.manifest)
            return make(call.stores, asked, found, units, theirs, request, call.on_progress)

        return _run(call, past, why, write)


def _listed(
    stores: Stores, asked: Asked, sources: Any, fresh: bool, defer: bool
) -> tuple[Listed, Listed | None, Asked]:
    """The inputs, those of what is joined, and what was asked with the digest of these."""
    functions = [each.function for each in asked.steps]
    if callable(sources):
        refuse_unused(asked.params, [sources, *functions])
        taken = {each: asked.params[each] for each in names_of(sources, asked.params)[0]}
        from_function.check_call(sources, taken)
        entry, code = entry_of(sources)[0], identity(sources).digest
        found = listed(stores, spooled(stores, sources, taken, entry, code, fresh))
    else:
        refuse_unused(asked.params, functions)
        found = listed(
            stores, opened(stores, sources), asked.unit_bytes, defer and _is_new(stores, asked.name)
        )
    if asked.whole.join is None:
        return found, None, asked
    theirs = listed(stores, opened(stores, asked.whole.join.other))
    return found, theirs, replace(asked, whole=replace(asked.whole, joined=theirs.digest))


def _is_new(stores: Stores, name: str) -> bool:
    """Whether nobody ever prepared this name."""
    with stores.meta.read() as meta:
        known = meta.find_version("dataset", name), meta.newest_run(name, "prepare")
    return known == (None, None)


def _request(asked: Asked, found: Listed, sources: Any) -> Request:
    def inputs(old: Manifest) -> list[str]:
        return changes(found, old).lines() if "inputs" in old.tables else []

    return Request(
        name=asked.name,
        shares=asked.rule.shares,
        rule=asked.rule.spec(),
        lineage=asked.lineage(found.opened, sources if callable(sources) else None, found.digest),
        options=asked.options(),
        inputs=inputs,
        sources=found.opened.versions,
    )


def _run(call: _Call, past: Past, why: str, write: Callable[[], Made]) -> Prepared:
    with pinned(call.stores.meta):
        made = write()
        asked = made.request
        if past.newest is not None and past.newest.digest == made.manifest.digest:
            same = f"; the rows are those of {past.newest.reference}"
            return Prepared(past.newest, False, f"running, because {why}{same}", made.lines)
        again = f"/{new_id()}" if call.fresh or past.damage else ""
        producer = call.producer or f"prepare/{asked.name}/{asked.content}{again}"
        version, new = commit(call.stores, asked, made.manifest, producer, made.aside)
    if not new:
        return Prepared(
            version, True, f"reused {version.reference}, because another process was first"
        )
    return Prepared(version, False, f"running, because {why}", made.lines)


def explain(stores: Stores, name: str, sources: Any, **options: Any) -> Plan:
    """What `prepare` with the same arguments would run, and why. Runs nothing.

    A function's rows can only be counted where it has run before.
    Raises what listing the inputs raises.
    """
    if (rows := cluster_rows(stores, sources)) is not None:
        unknown = "rows on a cluster are known once they have been written"
        return Plan(name, False, f"would write the rows of {rows.label}", unknown=unknown)
    single = {each: options.pop(each, None) for each in ("map", "filter", "flat_map", "batch")}
    for each in ("on_progress", "producer"):
        options.pop(each, None)
    fresh = bool(options.pop("fresh", False))
    whole = whole_of(*(options.pop(each, None) for each in ("dedupe", "sort", "shuffle", "join")))
    values = check_params(options.pop("params", None))
    steps = make_steps(single, options.pop("steps", None), values)
    asked = _asked(name, steps, values, whole, options)
    if callable(sources):
        plain = not steps and not whole.any and asked.rule.kind == "key"
        if plain or not known_rows(stores, sources, asked.params):
            return _explained_function(stores, asked, sources, fresh)
    with pinned(stores.meta):
        found, _, asked = _listed(stores, asked, sources, fresh=False, defer=False)
    request = _request(asked, found, sources)
    past = Past.of(stores, request)
    if past.whole and not fresh:
        why = f"{past.known_as} is it: inputs, steps and parameters are unchanged"
        seen = changes(found, past.manifest)
        return Plan(name, True, why, inputs=seen, known_as=past.known_as)
    units: list[Unit] = planned(stores, asked, found, fresh, past.manifest)
    return plan_of(name, reason(request, past, fresh), asked, units, changes(found, past.manifest))


def _asked(
    name: str, steps: list[Any], values: dict[str, Any], whole: Any, options: dict[str, Any]
) -> Asked:
    known = ("key", "splits", "by", "types", "bad", "bad_share", "workers", "unit_bytes", "expect")
    if unknown := sorted(set(options) - set(known)):
        raise BadInput(f"prepare has no argument {', '.join(unknown)}", "Leave it out.")
    return asked_of(
        name, steps, options.get("key"), options.get("splits"), options.get("by"),
        options.get("types"), values, whole, options.get("bad", "fail"),
        options.get("bad_share", 0.01), options.get("workers"), options.get("unit_bytes"),
        options.get("expect"),
    )  # fmt: skip


def _explained_function(stores: Stores, asked: Asked, function: Any, fresh: bool) -> Plan:
    request = from_function.request(
        asked.name, function, asked.key, asked.rule.shares or None, asked.params, asked.types
    )
    past = Past.of(stores, request)
    if past.whole and not fresh:
        why = f"{past.known_as} is it: function and parameters are unchanged"
        return Plan(asked.name, True, why, known_as=past.known_as)
    why = f"would run, because {reason(request, past, fresh)}"
    return Plan(asked.name, False, why, unknown="units are counted once the function has run")
