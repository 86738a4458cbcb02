"""What looking at a dataset version finds: rows, statistics, damage, where it came from.

Frozen and JSON-able, so that a terminal, a page and a far home see the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class DataRows:
    """Some rows of a split, large values summarised (see `data/showing.py`).

    reference  NAME@VERSION:SPLIT
    columns    name -> type, such as "float32[8, 8] (image)"
    rows       column -> value, of each
    start      number of the first row
    total      rows of the split
    """

    reference: str
    columns: dict[str, str]
    rows: list[dict[str, Any]]
    start: int
    total: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """counts  values in bars of equal width from low to high (of times: ISO text); the first and
    the last one also hold what lies beyond, where the tails are long. Counts are estimates (see
    `sketches.py`).
    """

    low: float | str
    high: float | str
    counts: list[float]


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """One column over a whole version. Of text and bytes min, max and the like are of lengths; of
    times they are ISO text, std a duration.

    type       as `DataRows.columns` has it
    nulls      missing values; not_finite: NaN or infinite ones
    distinct   different values, an estimate beyond 1,024
    quantiles  share -> value
    top        the most frequent values with their counts, of at most 256 different ones
    """

    column: str
    type: str
    rows: int
    nulls: int
    not_finite: int = 0
    distinct: int | None = None
    min: int | float | str | None = None
    max: int | float | str | None = None
    mean: int | float | str | None = None
    std: int | float | str | None = None
    quantiles: dict[str, int | float | str] = field(default_factory=dict)
    top: list[tuple[str, int]] = field(default_factory=list)
    histogram: Histogram | None = None


@dataclass(frozen=True, slots=True)
class DataDamage:
    """A blob of a version that is lost or not what its hash says.

    part   "manifest", "table", "shard" or "object"
    where  what it holds: a table's name, or "split/number" of a shard
    """

    part: str
    where: str
    digest: str
    error: str


@dataclass(frozen=True, slots=True)
class DataVerdict:
    """Whether every byte of a version is what its hash says; `damages` names what is not."""

    reference: str
    whole: bool
    blobs: int
    bytes: int
    damages: list[DataDamage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DataDiff:
    """What differs between two versions; rows are matched by key (see `data/diff.py`).

    moved    rows that went to another split
    keys     "added", "removed", "changed", "moved" -> keys of the first rows
    columns  name, change ("added", "removed", "changed"), old and new type
    drift    column, psi, ks, far, facts (name -> [old, new]), the farthest first
    splits   name -> (rows before, rows now) where they differ
    """

    old: str
    new: str
    equal: bool
    added: int
    removed: int
    changed: int
    moved: int
    same: int
    keys: dict[str, list[str]]
    columns: list[dict[str, Any]]
    drift: list[dict[str, Any]]
    splits: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class DataExpectations:
    """What the next version should look like, inferred from one; `toml` is the file."""

    reference: str
    rules: int
    toml: str


@dataclass(frozen=True, slots=True)
class DataFindings:
    """What a version does not hold of its expectations.

    refused     whether one of the violations refuses
    violations  expectation, severity, what, count (rows), rows ([split, number, key] of the first),
                samples (their values), in the order of the file
    """

    reference: str
    rows: int
    rules: int
    refused: bool
    violations: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Ancestor:
    """Something that a version was made from, and what that was made from.

    what  dataset, function, files (what an import was given), run, input (a file, or several)
    """

    what: str
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    sources: list[Ancestor] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Exported:
    """Files that were written, with how many rows they hold together; `files` are paths."""

    reference: str
    format: str
    folder: str
    files: list[str]
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Imported:
    """A version that was made of files, or found; why and notes are lines for people."""

    reference: str
    reused: bool
    why: str
    notes: list[str]
    rows: int
    splits: dict[str, int]


@dataclass(frozen=True, slots=True)
class Retired:
    """What retention did with the versions of datasets.

    keep     newest versions without a reason to stay that were kept, of each name
    dropped  references of the versions that went (or would go)
    kept     reference -> why it stays, of those that have a reason
    """

    keep: int
    dropped: list[str]
    kept: dict[str, list[str]]
