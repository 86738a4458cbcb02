"""One unit of an evaluation: some rows of a split through a model, predictions to Parquet.

Runs in a map worker, or in the calling process. Everything it needs is in `shared` and the payload;
equal arguments give equal bytes, so a unit that is executed twice has one effect.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.base.errors import BadInput
from penstock.data import Manifest, read_manifest, read_rows, to_numpy
from penstock.evaluation.fit import Fit
from penstock.evaluation.metrics import Array, Scored, Tally, score
from penstock.evaluation.suite import Suite
from penstock.records import from_json, to_data
from penstock.registry import LoadedModel, open_package

if TYPE_CHECKING:
    from penstock.jobs.map import UnitContext

FUNCTION = "penstock.evaluation.predict:unit"
SLICE = "slice."  # prefix of slice columns in the predictions
_models: OrderedDict[str, LoadedModel] = OrderedDict()  # by digest of their package
_KEPT_MODELS = 2


def unit(payload: dict[str, Any], context: UnitContext) -> dict[str, Any]:
    """Predict rows start..stop.

    payload  {"start": int, "stop": int}
    shared   {"suite", "fit": JSON of the records, "package", "dataset": digests, "split"}
    returns  {"refs": [digest], "digest", "start", "rows", "tally": {…}, "slices": [{"column",
             "value", "tally"}, …]}; the digest is of a Parquet blob, see `write`
    Raises BadInput for a label that is no class of the model.
    """
    shared = context.shared
    suite, fit = from_json(Suite, shared["suite"]), from_json(Fit, shared["fit"])
    manifest = read_manifest(context.blobs, shared["dataset"])
    names = [column for column, _ in fit.inputs]
    wanted = list(dict.fromkeys([manifest.key, suite.metrics.label, *names, *suite.slices]))
    start, stop = int(payload["start"]), int(payload["stop"])
    table = read_rows(context.blobs, manifest, shared["split"], wanted, start, stop)
    values = to_numpy(table, manifest.columns)
    labels = _labels(table, manifest, suite, fit)
    model = _model(context, shared["package"])
    inputs = {taken: values[column] for column, taken in fit.inputs}
    scores = _forward(model, inputs, fit.output, suite.batch_size)
    scored = score(scores, labels, suite.metrics.scores)
    digest = context.blobs.put(write(table, manifest.key, start, labels, scored, suite.slices))
    return {
        "refs": [digest],
        "digest": digest,
        "start": start,
        "rows": len(labels),
        "tally": to_data(Tally.of(scored.correct, scored.loss)),
        "slices": _slices(table, scored, suite.slices),
    }


def write(
    table: pa.Table, key: str, start: int, labels: Array, scored: Scored, slices: tuple[str, ...]
) -> bytes:
    """The predictions of a unit as Parquet.

    Columns: row int64 (in the split), key (as in the dataset), label int64, predicted int64 (-1
    where the scores are not finite), correct bool, score float32 (the largest probability), loss
    float64 (null where not finite), and `slice.NAME` for each slice column.
    """
    finite = np.isfinite(scored.loss)
    columns = {
        "row": pa.array(np.arange(start, start + len(labels), dtype=np.int64)),
        "key": table[key],
        "label": pa.array(labels),
        "predicted": pa.array(scored.predicted),
        "correct": pa.array(scored.correct),
        "score": pa.array(scored.score),
        "loss": pa.array(scored.loss, mask=~finite),
        **{SLICE + name: table[name] for name in slices},
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def _labels(table: pa.Table, manifest: Manifest, suite: Suite, fit: Fit) -> Array:
    """int64 [N], each a class of the model."""
    name = suite.metrics.label
    column = table[name]
    labels = pc.fill_null(column.cast(pa.int64()), -1).to_numpy()
    wrong = np.flatnonzero((labels < 0) | (labels >= fit.classes))
    if len(wrong):
        first = int(wrong[0])
        raise BadInput(
            f'label "{name}" of sample {table[manifest.key][first].as_py()!r} is '
            f"{column[first].as_py()}, but the model knows classes 0 to {fit.classes - 1}",
            f"Mend the labels ({len(wrong):,} of these {len(labels):,} rows), or drop such rows.",
            column=name,
            rows=len(wrong),
        )
    return np.ascontiguousarray(labels, dtype=np.int64)


def _model(context: UnitContext, package: str) -> LoadedModel:
    """Loading takes longer than a unit, so a worker keeps the last models. By content address, so
    a kept one can never be the wrong one."""
    if package not in _models:
        threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # a worker's part of the cores
        _models[package] = open_package(
            context.blobs, package, context.layout, threads=threads or None
        )
        while len(_models) > _KEPT_MODELS:
            _models.popitem(last=False)
    return _models[package]


def _forward(model: LoadedModel, inputs: dict[str, Any], output: str, batch_size: int) -> Array:
    """Scores of all rows: [N, C]."""
    rows = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, rows, batch_size):
        batch = {name: values[start : start + batch_size] for name, values in inputs.items()}
        parts.append(model.predict(batch)[output])
    return np.concatenate(parts)


def _slices(table: pa.Table, scored: Scored, slices: tuple[str, ...]) -> list[dict[str, Any]]:
    """A tally for each value of each slice column; missing values are a slice of their own."""
    found = []
    for name in slices:
        coded = table[name].combine_chunks().dictionary_encode(null_encoding="encode")
        codes = coded.indices.to_numpy(zero_copy_only=False)
        for code, value in enumerate(coded.dictionary.to_pylist()):
            chosen = codes == code
            tally = Tally.of(scored.correct[chosen], scored.loss[chosen])
            found.append({"column": name, "value": value, "tally": to_data(tally)})
    return found
