"""Statistics of a version as people look at them: a summary and a histogram per column."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penstock.data.columns import Column
from penstock.data.manifest import Manifest
from penstock.data.showing import column_text
from penstock.data.sketches import Distribution
from penstock.data.statistics import QUANTILES, Gatherer, Statistics, read_sketches
from penstock.data.times import told
from penstock.records.looks import ColumnSummary, Histogram

BARS = 24
_TOP = 10
_TAIL = 0.2  # where the middle 98 % take less of the range than this, the ends are cut


def summaries(manifest: Manifest, bars: int = BARS) -> list[ColumnSummary]:
    """One per column, in the schema's order; of the key little is known.

    Versions of the first formats have no histograms. Raises Damaged when the table is.
    """
    table = manifest.table("sketches")
    sketches = {} if table is None else read_sketches(table, manifest.columns)
    found = []
    for column in manifest.columns:
        statistics = manifest.statistics.get(column.name)
        if statistics is None:
            found.append(ColumnSummary(column.name, column_text(column), manifest.rows, 0))
        else:
            found.append(_summary(column, statistics, sketches.get(column.name), bars))
    return found


def _summary(
    column: Column, found: Statistics, gatherer: Gatherer | None, bars: int
) -> ColumnSummary:
    quantiles = zip(QUANTILES, found.quantiles or (), strict=False)
    bars_of = None if gatherer is None else _histogram(found, gatherer.distribution, bars)
    top = sorted((found.counts or {}).items(), key=lambda each: (-each[1], each[0]))
    return ColumnSummary(
        column=column.name,
        type=column_text(column),
        rows=found.rows,
        nulls=found.nulls,
        not_finite=found.not_finite,
        distinct=found.distinct,
        min=told("min", found.min, column),
        max=told("max", found.max, column),
        mean=told("mean", found.mean, column),
        std=told("std", found.std, column),
        quantiles={f"{share:g}": told("quantiles", value, column) for share, value in quantiles},
        top=top[:_TOP],
        histogram=None
        if bars_of is None
        else replace(
            bars_of, low=told("min", bars_of.low, column), high=told("max", bars_of.high, column)
        ),
    )


def _histogram(found: Statistics, distribution: Distribution, bars: int) -> Histogram | None:
    """Counts in bars of equal width; one bar per whole number where there are few."""
    if not distribution.total or found.min is None or found.max is None:
        return None
    low, high = float(found.min), float(found.max)
    if found.quantiles is not None and found.quantiles[-1] > found.quantiles[0]:
        middle = found.quantiles[-1] - found.quantiles[0]
        if middle < _TAIL * (high - low):
            low, high = found.quantiles[0], found.quantiles[-1]
    if isinstance(found.min, int) and high - low < bars:
        low, high = low - 0.5, high + 0.5
        bars = round(high - low)
    if not np.isfinite(high - low) or high <= low:
        return Histogram(low, high, [float(distribution.total)])
    edges = np.linspace(low, high, bars + 1)
    below = distribution.below(edges[1:-1].tolist())
    counts = np.diff(np.concatenate([[0.0], below, [float(distribution.total)]]))
    return Histogram(low, high, [round(float(each), 1) for each in counts])
