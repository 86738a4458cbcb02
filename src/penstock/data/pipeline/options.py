"""What a loader can be told, beside its data and its batch size."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data.order import Rows
from penstock.data.pipeline.work import Collate, Sample

Shuffle = bool | Literal["whole", "window"]
Fork = Callable[[str, str, dict[str, Any]], socket.socket]


class Options(TypedDict, total=False):
    """Which samples are in which batch (the data specification):

    epochs       passes over the source; each has its own order. Default 1
    seed         of the order and of the samples' randomness. Default 0
    shuffle      False: as they lie. True: as a whole up to 64 GiB, in windows beyond. "whole" and
                 "window" say which. Default True
    window_rows  rows that are mixed with each other, rounded up to whole blocks; only with
                 shuffle="window". Default: 64 blocks of about 64 MiB
    drop_last    leave out an incomplete last batch; default: where it shuffles, unless pad_last.
                 Kept, it is shorter, and the ranks' parts may differ by one row or be empty; every
                 rank still gets a batch at every step, so collectives stay in step
    pad_last     fill the last batch up with rows of the epoch's beginning; column `is_padding`,
                 bool [b], is True for them in every batch
    filter       (sample) -> bool; only samples for which it is true. Asked once about every sample,
                 before the first batch; kept in the node's cache by its code and the data
    aside        identity of a source -> numbers of its rows that are left out, before the filter
                 is asked; `run.data(expect=…)` gives those that "quarantine" sets aside

    What a batch is:

    map, batch_map, collate  see `work.Steps`

    How it is made; never changes a batch:

    rank, world_size  whose part of every global batch. Default 0 of 1
    workers      processes that make batches; 0: threads of this process do. Default 0
    threads      of this process, where there are no workers; 0: each batch is made when it is
                 asked for, in the thread that asks. Default 1; 2 where samples are mapped
    ahead_bytes  about how much may be made ahead of the step. Default 64 MiB
    device       where tensors are given, such as "cuda": pinned, copied beside the step. Default:
                 the CPU
    fork         starts a worker (see `pool`); default: an image of this process's own
    index        folder for what is computed once about the data; default: nothing is kept
    size         bytes of the source in memory, by which shuffle=True decides
    key          the column that names a sample, for messages
    """

    epochs: int
    seed: int
    shuffle: Shuffle
    window_rows: int | None
    drop_last: bool | None
    pad_last: bool
    filter: Callable[[Sample], Any] | None
    aside: Mapping[str, Rows]
    map: Callable[..., Sample] | None
    batch_map: Callable[..., Mapping[str, Any]] | None
    collate: Collate | None
    rank: int
    world_size: int
    workers: int
    threads: int
    ahead_bytes: int
    device: Any
    fork: Fork | None
    index: Path | None
    size: int
    key: str


def check_names(options: Mapping[str, Any]) -> None:
    """Raises BadInput for an option that is none: a slip of the pen must not change a training."""
    known = Options.__annotations__
    for name in options:
        if name not in known:
            raise BadInput(f"there is no option {name}", did_you_mean(name, known), option=name)
