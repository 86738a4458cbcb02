"""The ONNX file of a package: converted, stripped of its maker's paths, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.registry.binding import arguments
from penstock.registry.manifest import Place

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

TOLERANCE = 1e-4  # largest absolute difference from the model itself
LARGEST = 1_900_000_000  # bytes of weights; protobuf ends at 2 GiB


def convert(
    program: ExportedProgram,
    places: Sequence[Place],
    rows: Sequence[Tensor],
    outputs: Sequence[str],
) -> bytes:
    """The file's bytes; its inputs and outputs have the signature's names, the batch is "batch".

    Raises whatever the converter or the ONNX checker raise.
    """
    import onnx
    import torch

    args, kwargs = arguments(places, rows)
    made = torch.onnx.export(
        program,
        args,
        kwargs=kwargs,
        dynamo=True,
        input_names=[each.name for each in places],
        output_names=list(outputs),
        verbose=False,
    )
    assert made is not None
    model = made.model_proto
    _name_the_batch(model)
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def session(data: bytes, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU.

    threads  inside one operator; None: one per core that this process may use
    """
    import os

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def largest_difference(
    wanted: Mapping[str, np.ndarray[Any, Any]], got: Mapping[str, np.ndarray[Any, Any]]
) -> float:
    """Largest absolute difference over all outputs; infinite where shapes or types differ."""
    worst = 0.0
    for name, array in wanted.items():
        other = got[name]
        if array.shape != other.shape or array.dtype != other.dtype:
            return float("inf")
        if array.dtype.kind in "biu":
            worst = max(worst, 0.0 if np.array_equal(array, other) else float("inf"))
        elif array.size:
            worst = max(worst, _difference(array, other))
    return worst


def _difference(array: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """NaN and infinity count as equal to themselves only."""
    same = (array == other) | (np.isnan(array) & np.isnan(other))
    if same.all():
        return 0.0
    gap = np.abs(array[~same].astype(np.float64) - other[~same].astype(np.float64)).max()
    return float("inf") if np.isnan(gap) else float(gap)


def _name_the_batch(model: Any) -> None:
    """The converter calls the axis "s40" or the like; everywhere it appears it becomes "batch"."""
    old = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    for value in values:
        for axis in value.type.tensor_type.shape.dim:
            if old and axis.dim_param == old:
                axis.dim_param = "batch"


def _strip(model: Any) -> None:
    """Drop what the converter tells of itself: stack traces hold paths of this machine."""
    del model.metadata_props[:]
    for graph in (model.graph, *model.functions):
        _strip_graph(graph)


def _strip_graph(graph: Any) -> None:
    kinds = ("input", "output", "initializer", "value_info", "node")
    parts = [part for kind in kinds for part in getattr(graph, kind) if not isinstance(part, str)]
    for part in (graph, *parts):
        part.doc_string = ""
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip_graph(attribute.g)
