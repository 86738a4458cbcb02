"""The first stage: units that are missing run as a map, leased and committed exactly once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput, LeaseHeld
from penstock.base.hashing import digest_json
from penstock.base.ids import new_id
from penstock.data.columns import Column
from penstock.data.keys import KEY
from penstock.data.preparation import unit as unit_room
from penstock.data.preparation.asking import Asked, as_dicts
from penstock.data.preparation.bad import Account, Bad, account, failure, of_rows, refuse_many
from penstock.data.preparation.finishing import OURS, data_of
from penstock.data.preparation.keying import unit_keys
from penstock.data.preparation.places import RECORD, Places
from penstock.data.preparation.planning import Unit, whole_memory
from penstock.data.preparation.schema import Example, fits, merged, refuse_unknown
from penstock.data.preparation.steps import located
from penstock.data.preparation.tables import read_facts, read_table, told_column, trust
from penstock.data.preparation.voting import Ballot, counted, elected
from penstock.jobs.backends.engines import is_here
from penstock.jobs.map import run_map
from penstock.jobs.source import snapshot

if TYPE_CHECKING:
    from penstock.blobs import Blobs
    from penstock.data.formats import InputSource
    from penstock.data.preparation.sources import Opened
    from penstock.jobs.stores import Stores

_SMALL = 1 << 20  # bytes of input that are not worth starting workers for
_ELSEWHERE = 256  # workers at most on a cluster, where nobody says how many


@dataclass(frozen=True, slots=True)
class Progress:
    """What `on_progress` is called with. rows: of the units that are done."""

    stage: str
    done: int
    total: int
    rows: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Ran:
    """All units' results in order, and what they amount to.

    columns   of the version, without the key that is added
    own       whether a column of the data is the key
    executed  units that ran now; repeated: executions beyond the first, after deaths
    """

    results: list[dict[str, Any]]
    columns: list[Column]
    own: bool
    account: Account
    executed: int
    repeated: int

    @property
    def unstable(self) -> list[str]:
        """Places of records whose second run gave something else."""
        return [place for each in self.results for place in each["unstable"]]

    @property
    def unstable_key(self) -> str:
        """One line where the key's function gave another key for the same row, else ""."""
        return next((e["unstable_key"] for e in self.results if e.get("unstable_key")), "")


def workers_for(stores: Stores, asked: Asked, missing: Sequence[Unit]) -> int:
    """Processes: what was asked for; by default one per core, none for little work. Elsewhere as
    many as there is room for begin, so more than these cost nothing."""
    if asked.workers is not None:
        return min(asked.workers, len(missing))
    if len(missing) < 2 or sum(each.size for each in missing) < _SMALL:
        return 0
    cores = len(os.sched_getaffinity(0)) if is_here(stores.settings) else _ELSEWHERE
    return min(cores, len(missing))


def run_units(
    stores: Stores,
    asked: Asked,
    opened: Opened,
    units: Sequence[Unit],
    on_progress: OnProgress | None,
) -> Ran:
    """Run what is missing. Hold a pin.

    Raises BadInput, UserCodeFailed (with the user's traceback), CannotTravel, RunFailed; what is
    done by then stays and is not run again.
    """
    missing = [each for each in units if each.result is None]
    workers = workers_for(stores, asked, missing)
    known = {each.key: each.result for each in units if each.result is not None}
    repeated = 0
    with _shared(stores, asked, opened, workers) as shared:
        work = _Mapping(stores, asked, shared, workers)
        if missing:
            tell = _teller(on_progress, "units", known, len(units))
            payloads = {each.key: each.payload(each is units[0]) for each in missing}
            found, repeated = work.run(payloads, tell)
            trust(stores.blobs, (each["blob"] for each in found.values() if each["blob"]))
            known |= found
        results = [known[each.key] for each in units]
        _refuse_bad(stores.blobs, asked, results)
        columns, own = _schema(stores.blobs, asked, opened.source, units, results)
        known |= _refitted(stores, work, units, results, columns)
        results = [known[each.key] for each in units]
    counted = _account(stores.blobs, results)
    if asked.bad == "skip":
        refuse_many(counted, asked.bad_share)
    return Ran(results, columns, own, counted, len(missing), repeated)


def _refitted(
    stores: Stores,
    work: _Mapping,
    units: Sequence[Unit],
    results: Sequence[dict[str, Any]],
    columns: Sequence[Column],
) -> dict[str, dict[str, Any]]:
    """New results of the units whose columns got other types when all units were there."""
    fit: dict[str, bool] = {}
    odd: dict[str, dict[str, Any]] = {}
    found: dict[str, dict[str, Any]] = {}
    told = as_dicts(columns)
    before = {unit.key: result for unit, result in zip(units, results, strict=True)}
    for unit, result in zip(units, results, strict=True):
        of = _remembered_as(unit, result, work.shared["chain"])
        asked = {"columns": told, "again": digest_json(["refit", of, told]), "of": of}
        ballots = result["ballots"] and _ballots(stores.blobs, result)
        if ballots and not fits(elected(ballots), columns):
            odd[unit.key] = {**unit.payload(first=False), **asked}  # other rows fit these
            continue
        if not result["rows"]:
            continue
        if (schema := result["schema"]) not in fit:
            own = data_of(read_table(stores.blobs, result["blob"]), result).schema
            same = fits([told_column(each) for each in own], columns)
            fit[schema] = result["run"] is not None and same
        if not fit[schema]:
            inputs = [each.spec() for each in unit.inputs]
            odd[unit.key] = {"refit": result, "inputs": inputs, **asked}
    with stores.meta.read() as meta:
        for key, payload in list(odd.items()):
            if (known := whole_memory(stores.blobs, meta.recall(payload["again"]))) is not None:
                found[key] = {**known, "digests": before[key].get("digests")}
                del odd[key]
    return found | (work.run(odd, None)[0] if odd else {})


def _remembered_as(unit: Unit, result: Mapping[str, Any], chain: Mapping[str, Any]) -> str:
    """The key of a unit by what it read, which it told itself where nobody knew."""
    if unit.digests is not None:
        return unit.key
    named = [(i.name, told) for i, told in zip(unit.inputs, result["digests"], strict=True)]
    return unit_keys(chain, named)[-1]


@dataclass
class _Mapping:
    """The map of one call. A second one of the same content at the same time is a map of its own;
    each unit's output is remembered once."""

    stores: Stores
    asked: Asked
    shared: dict[str, Any]
    workers: int

    def run(
        self, payloads: Mapping[str, dict[str, Any]], on_done: Any
    ) -> tuple[dict[str, dict[str, Any]], int]:
        try:
            return self._once(payloads, on_done, self.shared)
        except LeaseHeld:
            return self._once(payloads, on_done, {**self.shared, "another": new_id("call")})

    def _once(
        self, payloads: Mapping[str, dict[str, Any]], on_done: Any, shared: dict[str, Any]
    ) -> tuple[dict[str, dict[str, Any]], int]:
        try:
            found = run_map(
                self.stores,
                name=self.asked.name,
                work="prepare",
                function=unit_room.FUNCTION,
                units=payloads,
                workers=min(self.workers, len(payloads)),
                shared=shared,
                on_done=on_done,
            )
        except BadInput as error:
            _refuse_what_nodes_miss(self.stores, error)
            raise
        return found.results, found.repeated


def _refuse_what_nodes_miss(stores: Stores, error: BadInput) -> None:
    """Raise what is meant where a file is gone for a node of a cluster and is there for us."""
    path = error.facts.get("path", "")
    if error.facts.get("gone") and not is_here(stores.settings) and Path(path).exists():
        raise BadInput(
            f"{path} is on this machine, and a node of the cluster does not see it",
            "Put raw files on a disk that all nodes mount, or in an object store; or prepare here: "
            "PENSTOCK_ENGINE=processes.",
            path=path,
        ) from error


@contextmanager
def _shared(stores: Stores, asked: Asked, opened: Opened, workers: int) -> Iterator[dict[str, Any]]:
    functions = [each.function for each in asked.steps]
    key = asked.key if callable(asked.key) else None
    if workers == 0:
        digests = [each.digest for each in asked.steps]
        token = "live-" + digest_json([digests, asked.name, os.getpid()]).rpartition(":")[2]
        unit_room.stay(token, unit_room.Live(functions, key))
        try:
            yield asked.shared(opened.source, token, [])
        finally:
            unit_room.leave(token)
        return
    entries = [located(each) for each in (*functions, *([key] if key else []))]
    roots = {entry.root: entry for entry in entries}
    paths = [snapshot(root, stores.blobs, entry=entry) for root, entry in roots.items()]
    yield asked.shared(opened.source, "", paths)


def _teller(
    on_progress: OnProgress | None, stage: str, known: Mapping[str, dict[str, Any]], total: int
) -> Any:
    if on_progress is None:
        return None
    rows = sum(each["rows"] for each in known.values())
    done = len(known)
    on_progress(Progress(stage, done, total, rows))

    def tell(results: Mapping[str, Mapping[str, Any]]) -> None:
        nonlocal rows, done
        done += len(results)
        rows += sum(each["rows"] for each in results.values())
        on_progress(Progress(stage, done, total, rows))

    return tell


def _refuse_bad(blobs: Blobs, asked: Asked, results: Sequence[Mapping[str, Any]]) -> None:
    """In mode "fail" also what an earlier call in another mode left out is an error."""
    if asked.bad == "fail":
        for each in results:
            if each["bad"]:
                raise failure(bad_records(blobs, each)[0])


def bad_records(blobs: Blobs, result: Mapping[str, Any]) -> list[Bad]:
    """Of one unit, in order."""
    return of_rows(read_facts(blobs, result["facts"]).to_pylist())


def _account(blobs: Blobs, results: Sequence[Mapping[str, Any]]) -> Account:
    return account(
        (each["records"], lambda each=each: bad_records(blobs, each), each["bad"])  # type: ignore[misc]
        for each in results
    )


def _schema(
    blobs: Blobs,
    asked: Asked,
    source: InputSource,
    units: Sequence[Unit],
    results: Sequence[Mapping[str, Any]],
) -> tuple[list[Column], bool]:
    """The columns of the whole; each schema is read once, from the first unit that has it. Where
    units differ and bad records may be left out, most rows decide."""
    seen: dict[str, tuple[Example, bool, list[Column]]] = {}
    for unit, result in zip(units, results, strict=True):
        if result["rows"] and result["schema"] not in seen:
            first = _first_row(blobs, source, unit, result)
            seen[result["schema"]] = (first, result["own"], told_columns(blobs, result))
    try:
        return merged(list(seen.values())), all(own for _, own, _ in seen.values())
    except BadInput as error:
        if asked.bad == "fail" or "differences" not in error.facts:
            raise
    columns = elected(counted(each for result in results for each in _ballots(blobs, result)))
    refuse_unknown(columns)
    named = asked.key is None and any(each.name == KEY for each in columns)
    return columns, isinstance(asked.key, str) or named


def _ballots(blobs: Blobs, result: Mapping[str, Any]) -> list[Ballot]:
    """How the rows of a unit vote."""
    if result["ballots"] is not None:
        return [Ballot.from_told(each) for each in result["ballots"]]
    if not result["rows"]:
        return []
    return [Ballot.of(data_of(read_table(blobs, result["blob"]), result))]


def _first_row(blobs: Blobs, source: InputSource, unit: Unit, result: Mapping[str, Any]) -> Example:
    """Tells the place of the first row of a unit that has a value in a column."""

    def place(column: str) -> str:
        table = read_table(blobs, result["blob"])
        records = table[RECORD].to_numpy()
        if column in table.column_names:
            there = table[column].is_valid().to_numpy()
            records = records[there] if there.any() else records
        first = min(records.tolist(), key=lambda each: max(each, ~each))
        return Places(source, unit.inputs).of([first])[0]

    return place


def told_columns(blobs: Blobs, result: Mapping[str, Any]) -> list[Column]:
    """A unit's columns, as its blob tells them."""
    fields = read_table(blobs, result["blob"]).schema
    return [told_column(each) for each in fields if each.name not in OURS]
