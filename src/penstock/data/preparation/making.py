"""From an asked preparation to the manifest of its version: units, order, checks, shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.base.units import show_count
from penstock.data.manifest import Lineage, Manifest, write_manifest
from penstock.data.preparation.asking import Asked
from penstock.data.preparation.assembly import columns_of, laid, refuse_duplicates, shelve
from penstock.data.preparation.bad import Account, Bad, Tally, refuse_many
from penstock.data.preparation.ordering import ordered
from penstock.data.preparation.past import Request
from penstock.data.preparation.places import Places
from penstock.data.preparation.planning import Listed, Unit, inputs_table, told
from penstock.data.preparation.running import (
    OnProgress,
    Ran,
    bad_records,
    run_units,
    workers_for,
)
from penstock.data.shards import write_shards

if TYPE_CHECKING:
    from penstock.blobs import Blobs
    from penstock.jobs.stores import Stores

_SHOWN = 3

QUARANTINE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("place", pa.string()),
        ("step", pa.string()),
        ("error", pa.string()),
        ("raw", pa.binary()),
    ]
)


@dataclass(frozen=True)
class Made:
    """request  what was asked for, with the digests of all inputs
    aside    what was put aside, as the manifest of NAME-quarantine
    lines    what people should know
    """

    request: Request
    manifest: Manifest
    aside: Manifest | None = None
    lines: tuple[str, ...] = ()


def make(
    stores: Stores,
    asked: Asked,
    found: Listed,
    units: Sequence[Unit],
    theirs: Listed | None,
    request: Callable[[Listed], Request],
    on_progress: OnProgress | None,
) -> Made:
    """Run what is missing and write all blobs of the version. Hold a pin.

    request  for inputs whose digests are known

    Raises BadInput, UserCodeFailed, Refused and what the stores raise; nothing is visible then.
    """
    workers = workers_for(stores, asked, units)
    ran = run_units(stores, asked, found.opened, units, on_progress)
    found = told(found, ran.results)
    asked_for = request(found)
    columns, key = columns_of(asked, ran)
    whole = laid(asked, ran, [Places(found.opened.source, each.inputs) for each in units])
    joined = Tally(asked.bad)
    made = ordered(stores, asked.whole, whole, columns, theirs, joined)
    if asked.bad == "skip":
        refuse_many(joined.account(), asked.bad_share)
    refuse_duplicates(stores, asked, whole, columns, key, made.kept(whole.rows))
    bad: list[Bad] = []
    notes = _notes(asked, ran, units)
    lines = _lines(asked, ran.account) + _lines(asked, joined.account()) + _unstable(asked, ran)
    if calls := [line for line in (found.opened.note, ran.unstable_key) if line]:
        notes["unstable_calls"] = calls
        lines += calls
    if asked.expect is not None:
        from penstock.data.preparation.checking import checked

        seen = checked(stores, asked.name, asked.expect, whole, made, key)
        made, bad = seen.ordered, seen.aside
        notes["expectations"] = seen.note
        lines += seen.lines
    heaps = made.piles(stores.blobs, whole)
    written = shelve(
        stores, asked, whole, heaps, made.columns, key, made.right, workers, on_progress
    )
    if asked.bad == "quarantine":
        bad = [each for result in ran.results if result["bad"]
               for each in bad_records(stores.blobs, result)] + joined.found + bad  # fmt: skip
    chain = asked.chain(found.opened.source.identity)
    aside = _quarantine(stores.blobs, asked.name, bad) if bad else None
    if aside is not None:
        notes["quarantine"] = {"dataset": f"{asked.name}-quarantine", "rows": aside.rows}
        many = show_count(aside.rows, "record")
        lines.append(f"{many} went into {asked.name}-quarantine")
    manifest = write_manifest(
        stores.blobs,
        columns=written.columns,
        key=written.key,
        splits=written.splits,
        shards=written.shards,
        statistics=written.statistics,
        lineage=asked_for.lineage,
        checks=written.checks,
        tables={**written.tables, "inputs": inputs_table(found, chain)},
        notes=notes,
    )
    return Made(asked_for, manifest, aside, tuple(lines))


def _notes(asked: Asked, ran: Ran, units: Sequence[Unit]) -> dict[str, Any]:
    steps = [{"name": each.name, "code": each.code.digest.rpartition(":")[2], "keep": each.keep}
             for each in asked.steps]  # fmt: skip
    notes: dict[str, Any] = {
        "steps": steps,
        "rule": asked.rule.spec(),
        "options": asked.options(),
        "units": len(units),
        "inputs": sum(len(each.inputs) for each in units),
        "records": ran.account.note(asked.bad),
    }
    if ran.unstable:
        notes["unstable"] = ran.unstable[:20]
    return notes


def _lines(asked: Asked, found: Account) -> list[str]:
    if not found.bad:
        return []
    what = "were skipped" if asked.bad == "skip" else "were put aside"
    first = "; ".join(f"{b.place}: {b.error}" for b in found.first[:_SHOWN])
    return [f"{found.bad} of {found.records} records are bad and {what}: {first}"]


def _unstable(asked: Asked, ran: Ran) -> list[str]:
    lines = []
    if ran.unstable:
        names = ", ".join(each.name.partition(" ")[2] for each in asked.steps)
        lines.append(
            f"{names}: a second run of the same record gave something else "
            f"({', '.join(ran.unstable[:_SHOWN])}); draw random numbers from a seed of the record"
        )
    return lines


def _quarantine(blobs: Blobs, name: str, bad: Sequence[Bad]) -> Manifest:
    """The manifest of what was put aside, in order of the inputs."""
    rows = [
        {"key": f"{number:09d}", "place": each.place, "step": each.step, "error": each.error,
         "raw": each.raw}
        for number, each in enumerate(bad)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)
    written = write_shards(blobs, table, key="key", splits={"all": 1.0})
    return write_manifest(
        blobs,
        columns=written.columns,
        key=written.key,
        splits=written.splits,
        shards=written.shards,
        statistics=written.statistics,
        lineage=Lineage(f"quarantine of {name}", ""),
        checks=written.checks,
        tables=written.tables,
    )
