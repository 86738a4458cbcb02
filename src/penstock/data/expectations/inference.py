"""What a version looks like, as expectations of the next one.

From the manifest and its sketches alone, except for uniqueness: a column whose values may all
differ is read once.
"""

from __future__ import annotations

from typing import Any

from penstock.blobs import Blobs
from penstock.data.columns import Column
from penstock.data.expectations import ends
from penstock.data.expectations.distance import edges_of, shares_of
from penstock.data.expectations.model import DATASET, LEAKAGE, Expectation, Expectations, Severity
from penstock.data.expectations.rules import Facts
from penstock.data.manifest import Manifest
from penstock.data.reading import read_tables
from penstock.data.row_hashes import Sorter, hash_rows, records, runs
from penstock.data.statistics import Statistics, read_sketches
from penstock.data.types import describe

_WIDER = 0.1  # of the span of a range or of lengths, at each end
_PER_CATEGORY = 10  # rows for each different value, on average, before they are categories
_MAY_BE_UNIQUE = 0.9  # of the values that a sketch takes for different
_FAR = 0.2  # PSI

_NAMES = ("key", "episode")  # meanings whose values are new in every version

Found = tuple[str, Severity, dict[str, Any]]  # rule, severity, values


def infer(blobs: Blobs, manifest: Manifest, about: str = "") -> Expectations:
    """Expectations that this version meets (leakage apart, which is what should be).

    about  what to call the version in the file, such as "digits@3"
    Raises NotFound and Damaged as reading does.
    """
    facts = facts_of(manifest)
    rules = [
        Expectation(DATASET, "", "rows", {"least": manifest.rows // 2}),
        Expectation(DATASET, "", "other_columns", {}),
    ]
    for column in manifest.columns:
        rules += _of_column(column, facts.get(column.name), blobs, manifest)
    rules.append(_leak("key", "refuse"))
    for column in manifest.columns:
        if column.meaning == "episode":
            rules.append(_leak("episode", "refuse", column=column.name))
            break
    rules.append(_leak("content", "warn"))
    return Expectations(tuple(rules), about)


def facts_of(manifest: Manifest) -> dict[str, Facts]:
    """What a manifest tells of each column; without sketches of older versions."""
    table = manifest.table("sketches")
    sketches = {} if table is None else read_sketches(table, manifest.columns)
    return {
        each.name: Facts(each, manifest.statistics[each.name], sketches.get(each.name))
        for each in manifest.columns
        if each.name in manifest.statistics
    }


def _leak(rule: str, severity: Severity, **values: Any) -> Expectation:
    return Expectation(LEAKAGE, "", rule, values, severity)


def _of_column(
    column: Column, facts: Facts | None, blobs: Blobs, manifest: Manifest
) -> list[Expectation]:
    meaning = {"meaning": column.meaning} if column.meaning else {}
    found: list[Found] = [("type", "refuse", {"is": describe(column), **meaning})]
    if facts is not None and facts.statistics.rows:
        found += _missing(column, facts)
    if facts is not None and facts.statistics.rows and column.meaning not in _NAMES:
        if (categories := _categories(column, facts.statistics)) is not None:
            found.append(("categories", "refuse", {"are": categories}))
        else:
            found += _spread(column, facts.statistics)
        if _all_differ(column, facts, blobs, manifest):
            found.append(("unique", "warn", {}))
        found += _distribution(facts, categories)
    return [
        Expectation("columns", column.name, name, values, severity)
        for name, severity, values in found
    ]


def _missing(column: Column, facts: Facts) -> list[Found]:
    statistics = facts.statistics
    found: list[Found] = [_share("missing", statistics.nulls, statistics.rows)]
    if column.dtype.startswith("float") and facts.gatherer is not None:
        there = facts.gatherer.elements + statistics.not_finite
        found.append(_share("finite", statistics.not_finite, there))
    return found


def _share(rule: str, part: int, whole: int) -> Found:
    """None, when there were none; otherwise twice as many are still expected."""
    if not part:
        return rule, "refuse", {"most": 0.0}
    return rule, "warn", {"most": min(1.0, round(2 * part / whole + 0.0005, 3))}


def _spread(column: Column, statistics: Statistics) -> list[Found]:
    found: list[Found] = []
    numeric = column.kind in ("number", "tensor", "list") and column.dtype != "bool"
    if numeric and statistics.min is not None and statistics.max is not None:
        found.append(("range", "warn", _wider(statistics.min, statistics.max)))
    if column.kind == "time" and statistics.min is not None and statistics.max is not None:
        wider = ends.inferred(int(statistics.min), int(statistics.max), column)
        found += [("range", "warn", wider)] if wider is not None else []
    if statistics.shortest is not None and statistics.longest is not None:
        lengths = _wider(statistics.shortest, statistics.longest)
        found.append(("length", "warn", lengths | {"least": max(0, lengths["least"])}))
    return found


def _wider(low: float, high: float) -> dict[str, Any]:
    """A tenth of the span more at each end; a bound at zero stays one."""
    if isinstance(low, int) and isinstance(high, int):
        more: float = -(-(high - low) // 10)
    else:
        more = (high - low) * _WIDER
    if not -1e300 < more < 1e300:
        more = 0
    least, most = low - more, high + more
    if low >= 0 > least:
        least = 0
    if high <= 0 < most:
        most = 0
    return {"least": least, "most": most}


def _categories(column: Column, statistics: Statistics) -> list[Any] | None:
    """The different values of a column that has few; None of flags, and where they are many."""
    counts = statistics.counts
    if not counts or column.dtype == "bool":
        return None
    if len(counts) * _PER_CATEGORY > statistics.rows - statistics.nulls:
        return None
    return sorted(map(int, counts)) if column.kind == "number" else sorted(counts)


def _all_differ(column: Column, facts: Facts, blobs: Blobs, manifest: Manifest) -> bool:
    """Whether no value comes twice: read, when the sketch leaves it open."""
    statistics, there = facts.statistics, facts.statistics.rows - facts.statistics.nulls
    if column.dtype.startswith("float") or column.dtype == "bool" or there < 2:
        return False
    distinct = facts.gatherer and facts.gatherer.distinct
    if not distinct or statistics.distinct is None:
        return False
    if distinct.exact:
        return statistics.distinct == there
    if statistics.distinct < _MAY_BE_UNIQUE * there:
        return False
    with Sorter() as sorter:
        for split in manifest.splits.values():
            for table in read_tables(blobs, manifest, split.name, [column.name]):
                values = table.filter(table[column.name].is_valid())
                sorter.add(records(hash_rows(values, [column]), 0, 0))
        return all(len(runs(part)) - 1 == len(part) for part in sorter.sorted())


def _distribution(facts: Facts, categories: list[Any] | None) -> list[Found]:
    statistics, gatherer = facts.statistics, facts.gatherer
    there = statistics.rows - statistics.nulls
    if facts.column.dtype == "bool" and facts.column.kind == "number" and statistics.counts:
        categories = sorted(statistics.counts)
    if categories and statistics.counts:
        shares = [statistics.counts[str(each)] / there for each in categories]
        bins: dict[str, Any] = {"names": categories, "shares": [*_rounded(shares), 0.0]}
    else:
        edges = [] if gatherer is None else edges_of(gatherer.distribution)
        told = ends.texts(edges, facts.column)
        if not told or gatherer is None:
            return []
        numbers = ends.edges(told, facts.column)
        bins = {"edges": told, "shares": _rounded(shares_of(gatherer.distribution, numbers))}
    return [("distribution", "warn", {"most": _FAR, "of": there, **bins})]


def _rounded(shares: list[float]) -> list[float]:
    return [round(each, 6) for each in shares]
