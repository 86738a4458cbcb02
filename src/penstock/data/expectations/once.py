"""Hold a version against expectations before it is read, once: what was found is kept.

Three ways, the cheapest that tells all: what was noted when the version was made with the same
file; schema and statistics; every row. The last costs a pass over the version. One process of the
node makes it while the others wait, and it is kept in the node's cache by the digests of version
and file, so that no later reader makes it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from penstock.base.log import facts, logger
from penstock.blobs import Blobs
from penstock.data.expectations.checking import Checker, check_manifest
from penstock.data.expectations.inference import facts_of
from penstock.data.expectations.model import (
    DATASET,
    LEAKAGE,
    Expectation,
    Expectations,
    Violation,
    digest_of,
)
from penstock.data.expectations.rules import RULES, Facts
from penstock.data.manifest import Manifest
from penstock.data.order import Rows
from penstock.data.reading import read_tables
from penstock.data.samples.index import kept, numbers

FORMAT = "penstock-expectations-1"
_TOLD = b"penstock.violations"
_PATIENCE = 86_400.0  # seconds that others wait for the process that reads
_log = logger("data")


@dataclass(frozen=True)
class Held:
    """What a version does not hold.

    violations  in the order of the file
    aside       split -> numbers of the rows that "quarantine" sets aside: int64, rising; splits
                without such rows are not there
    by          "note": the version was made with this very file, which set rows aside then;
                "statistics": they and the schema told all; "rows": every row was looked at, now
                or before
    """

    violations: list[Violation]
    aside: Mapping[str, Rows] = field(default_factory=dict)
    by: Literal["note", "statistics", "rows"] = "statistics"


def hold(
    blobs: Blobs, manifest: Manifest, expectations: Expectations, folder: Path | None, name: str
) -> Held:
    """Hold a whole version against expectations.

    folder  where what a pass found is kept; None: nowhere
    name    of the version, for the log
    Raises BadInput for a rule that cannot be asked of its column, and what reading raises. Raises
    nothing for violations: see `refuse`.
    """
    digest = digest_of(expectations)
    note = manifest.notes.get("expectations")
    if isinstance(note, Mapping) and note.get("digest") == digest:
        noted = _from_dicts(note["violations"], expectations)
        return Held([each for each in noted if each.severity != "quarantine"], by="note")
    glance = check_manifest(manifest, expectations)
    refused = any(each.severity == "refuse" and not _of_rows(each.expectation) for each in glance)
    if refused or not _needs_rows(manifest, expectations, glance):
        return Held(glance)

    def build() -> pa.Table:
        _log.info(
            "holding every row against expectations; it is remembered",
            extra=facts(dataset=name, rows=manifest.rows, rules=len(expectations)),
        )
        return _read(blobs, manifest, expectations)

    table = kept(folder, [FORMAT, manifest.digest, digest], build, _PATIENCE)
    told = json.loads((table.schema.metadata or {})[_TOLD])
    aside = {}
    if table.num_rows:
        split, rows = numbers(table, "split"), numbers(table, "row")
        names = list(manifest.splits)
        aside = {names[each]: rows[split == each] for each in np.unique(split).tolist()}
    return Held(_from_dicts(told, expectations), aside, "rows")


def _of_rows(each: Expectation) -> bool:
    """Whether rows break it, which a pass names."""
    if each.section in (DATASET, LEAKAGE):
        return each.section == LEAKAGE
    return each.rule == "unique" or RULES[each.rule].sets_aside(each.values)


def _needs_rows(manifest: Manifest, expectations: Expectations, glance: list[Violation]) -> bool:
    """Whether a rule is left that only rows can tell of, or a violation whose rows have no name."""
    if any(_of_rows(each.expectation) for each in glance):
        return True
    known = facts_of(manifest)
    return any(not _is_told(each, manifest, known) for each in expectations.rules)


def _is_told(each: Expectation, manifest: Manifest, known: Mapping[str, Facts]) -> bool:
    """Whether schema and statistics say for certain that a rule holds, once they see no breach."""
    if each.section == DATASET:
        return True
    if each.section == LEAKAGE:
        return each.rule == "key" and manifest.checks.get("no_key_in_two_splits") is True
    if each.column not in manifest.schema or each.rule == "type":
        return True
    found = known.get(each.column)  # the key has none
    return found is not None and RULES[each.rule].is_told(found)


def _read(blobs: Blobs, manifest: Manifest, expectations: Expectations) -> pa.Table:
    """Rows that are set aside, with all violations beside them."""
    splits, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    with Checker(expectations, manifest.columns, manifest.key) as checker:
        for split, first, table in _tables(blobs, manifest):
            found = first + np.flatnonzero(checker.add(table, split))
            rows.append(found)
            splits.append(np.full(len(found), list(manifest.splits).index(split), np.int64))
        violations = checker.finish()
    table = pa.table({"split": np.concatenate(splits), "row": np.concatenate(rows)})
    told = json.dumps([each.as_dict() for each in violations]).encode()
    return table.replace_schema_metadata({_TOLD: told})


def _tables(blobs: Blobs, manifest: Manifest) -> Iterator[tuple[str, int, pa.Table]]:
    for split in manifest.splits:
        first = 0
        for table in read_tables(blobs, manifest, split):
            yield split, first, table
            first += table.num_rows


def _from_dicts(found: list[dict[str, Any]], expectations: Expectations) -> list[Violation]:
    known = {each.name: each for each in expectations.rules}
    return [Violation.of(known[each["expectation"]], each) for each in found]
