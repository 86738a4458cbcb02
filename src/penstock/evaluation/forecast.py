"""Predictions of a model on a split: computed once per content, kept, read back as one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.base.errors import Damaged
from penstock.base.hashing import digest_json
from penstock.blobs.port import Blobs
from penstock.data import Manifest, unit_ranges
from penstock.evaluation.fit import Fit
from penstock.evaluation.gates import Comparison
from penstock.evaluation.metrics import Moments, Tally, join
from penstock.evaluation.predict import FUNCTION
from penstock.evaluation.report import Part, SliceValue
from penstock.evaluation.suite import Suite
from penstock.records import Version, from_json, to_data, to_json

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

CODE = 1  # raised when the same inputs would give other predictions or tallies
_UNIT_ROWS = 4096  # at least; whole batches, so that units do not change what a batch holds


@dataclass(frozen=True, slots=True)
class SliceTally:
    """What the samples of one slice add up to."""

    column: str
    value: SliceValue
    tally: Tally


@dataclass(frozen=True, slots=True)
class Forecast:
    """All predictions of one model on one split. JSON-able: it is remembered by content."""

    parts: tuple[Part, ...]
    tally: Tally
    slices: tuple[SliceTally, ...]

    @property
    def refs(self) -> list[str]:
        return [part.digest for part in self.parts]


def forecast(
    stores: Stores,
    suite: Suite,
    model: Version,
    manifest: Manifest,
    split: str,
    fitting: Fit,
    *,
    workers: int = 0,
    fresh: bool = False,
    on_progress: Callable[..., Any] | None = None,
) -> Forecast:
    """Predict, or take what was predicted before for the same model, data, inputs and slices.

    Gates and names do not matter here, so another threshold costs no second pass. Raises what a
    unit raises (UserCodeFailed, BadInput) and what the stores raise.
    """
    key = digest_json(
        {
            "what": "predictions",
            "code": CODE,
            "package": model.digest,
            "dataset": manifest.digest,
            "split": split,
            "metrics": to_data(suite.metrics),
            "fit": to_data(fitting),
            "slices": sorted(suite.slices),
            "batch_size": suite.batch_size,
        }
    )
    if not fresh:
        with stores.meta.read() as meta:
            known = meta.recall(key)
        if known is not None:
            return from_json(Forecast, to_json(known))
    found = _predict(stores, suite, model, manifest, split, fitting, workers, on_progress)
    with stores.meta.write() as meta:
        meta.remember(key, "predictions", to_data(found), found.refs)
    return found


def _predict(
    stores: Stores,
    suite: Suite,
    model: Version,
    manifest: Manifest,
    split: str,
    fitting: Fit,
    workers: int,
    on_progress: Callable[..., Any] | None,
) -> Forecast:
    from penstock.jobs.map import run_map

    rows = -(-_UNIT_ROWS // suite.batch_size) * suite.batch_size
    ranges = unit_ranges(manifest, split, rows)
    done = run_map(
        stores,
        name=f"{suite.name}/{model.name}",
        work="evaluate",
        function=FUNCTION,
        units={f"{start:012d}": {"start": start, "stop": stop} for start, stop in ranges},
        workers=workers,
        shared={
            "suite": to_json(suite).decode(),
            "fit": to_json(fitting).decode(),
            "package": model.digest,
            "dataset": manifest.digest,
            "split": split,
        },
        on_progress=on_progress,
    )
    results = [done.results[key] for key in sorted(done.results)]
    return _joined(results)


def _joined(results: list[dict[str, Any]]) -> Forecast:
    """Units put together, in the order of their rows."""
    slices: dict[tuple[str, str, SliceValue], list[Tally]] = {}
    for result in results:
        for each in result["slices"]:
            key = (each["column"], type(each["value"]).__name__, each["value"])
            slices.setdefault(key, []).append(_tally(each["tally"]))
    return Forecast(
        parts=tuple(Part(each["digest"], each["start"], each["rows"]) for each in results),
        tally=join(_tally(each["tally"]) for each in results),
        slices=tuple(
            SliceTally(column, value, join(slices[column, kind, value]))
            for column, kind, value in sorted(slices, key=lambda k: (k[0], k[1], k[2] or 0))
        ),
    )


def _tally(data: dict[str, Any]) -> Tally:
    return Tally(data["n"], data["correct"], Moments(**data["loss"]))


def read_parts(blobs: Blobs, parts: tuple[Part, ...], columns: list[str] | None = None) -> pa.Table:
    """All predictions as one table, in the order of the split's rows. Raises NotFound, Damaged."""
    tables = []
    for part in sorted(parts, key=lambda each: each.start):
        try:
            table = pq.read_table(pa.BufferReader(blobs.get(part.digest)), columns=columns)
        except pa.ArrowException as error:
            raise Damaged(
                f"predictions {part.digest} do not parse: {error}",
                "Evaluate again with fresh=True.",
                digest=part.digest,
            ) from None
        tables.append(table)
    return pa.concat_tables(tables)


def compare(blobs: Blobs, model: Forecast, baseline: Forecast, reference: str) -> Comparison:
    """Both models on each sample. Raises Damaged when they did not see the same samples."""
    ours = read_parts(blobs, model.parts, ["key", "correct", "loss"])
    theirs = read_parts(blobs, baseline.parts, ["key", "correct", "loss"])
    if not ours["key"].combine_chunks().equals(theirs["key"].combine_chunks()):
        raise Damaged(
            f"the predictions of {reference} are of other samples",
            "Evaluate both again with fresh=True.",
            baseline=reference,
        )
    right, other = ours["correct"].to_numpy(), theirs["correct"].to_numpy()
    gap = theirs["loss"].to_numpy() - ours["loss"].to_numpy()  # missing is NaN, left out
    return Comparison(
        baseline=reference,
        n=len(right),
        gained=int(np.count_nonzero(right & ~other)),
        lost=int(np.count_nonzero(other & ~right)),
        loss=Moments.of(gap),
    )
