"""Datasets as versions: made once, read in an order that is a function, verified on the way.

Names load on first use, so that a rank that only reads loads nothing that writes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.data.columns import Column, to_numpy
    from penstock.data.dataset import Dataset, open_dataset
    from penstock.data.loader import Loader
    from penstock.data.manifest import Lineage, Manifest, Shard, Split, read_manifest
    from penstock.data.mixing import Mix
    from penstock.data.order import Order, batch_indices, order_indices, rank_slice
    from penstock.data.preparation import (
        ByTime,
        Join,
        Plan,
        Prepared,
        Progress,
        Step,
        explain,
        prepare,
    )
    from penstock.data.reading import (
        MadeOf,
        made_of,
        read_rows,
        read_split,
        resolve,
        unit_ranges,
    )
    from penstock.data.source import ShardSource, Source
    from penstock.data.statistics import Statistics

_WHERE = {
    "ByTime": "preparation",
    "Column": "columns",
    "Dataset": "dataset",
    "Join": "preparation",
    "Lineage": "manifest",
    "Loader": "loader",
    "MadeOf": "reading",
    "Manifest": "manifest",
    "Mix": "mixing",
    "Order": "order",
    "Plan": "preparation",
    "Prepared": "preparation",
    "Progress": "preparation",
    "Shard": "manifest",
    "ShardSource": "source",
    "Source": "source",
    "Split": "manifest",
    "Statistics": "statistics",
    "Step": "preparation",
    "batch_indices": "order",
    "explain": "preparation",
    "made_of": "reading",
    "open_dataset": "dataset",
    "order_indices": "order",
    "prepare": "preparation",
    "rank_slice": "order",
    "read_manifest": "manifest",
    "read_rows": "reading",
    "read_split": "reading",
    "resolve": "reading",
    "to_numpy": "columns",
    "unit_ranges": "reading",
}

__all__ = [
    "ByTime",
    "Column",
    "Dataset",
    "Join",
    "Lineage",
    "Loader",
    "MadeOf",
    "Manifest",
    "Mix",
    "Order",
    "Plan",
    "Prepared",
    "Progress",
    "Shard",
    "ShardSource",
    "Source",
    "Split",
    "Statistics",
    "Step",
    "batch_indices",
    "explain",
    "made_of",
    "open_dataset",
    "order_indices",
    "prepare",
    "rank_slice",
    "read_manifest",
    "read_rows",
    "read_split",
    "resolve",
    "to_numpy",
    "unit_ranges",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
