"""From a source and options to a plan. What does not fit is refused here, before any batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.base.errors import BadInput
from penstock.data.mixing import Mix
from penstock.data.order import (
    BLOCK_BYTES,
    WINDOW_BLOCKS,
    Order,
    Rows,
    check_order,
    window_of,
)
from penstock.data.pipeline.filtering import chosen_rows, content_of
from penstock.data.pipeline.options import Options, check_names
from penstock.data.pipeline.plan import MixPlan, OrderPlan, Plan

_SHUFFLES = (True, False, "whole", "window")
_BLOCK_ROWS = 4096  # of a source whose bytes nobody knows


def plan_of(source: Any, batch_size: int, options: Options) -> OrderPlan:
    """Raises BadInput for what cannot be, and what the user's filter raised."""
    rank, world_size = part_of(options)
    chosen = _chosen(source, options)
    order = order_of(source, batch_size, options, chosen)
    check_order(order, world_size)
    if options.get("pad_last") and batch_size % world_size:
        raise BadInput(
            f"a global batch of {batch_size} does not divide by {world_size} ranks",
            "Take a batch size that does: a padded batch is equal on all ranks.",
            batch_size=batch_size,
            world_size=world_size,
        )
    epochs = options.get("epochs", 1)
    pad = options.get("pad_last", False)
    return OrderPlan(order, epochs, rank, world_size, chosen=chosen, pad=pad)


def mix_plan(
    sources: Mapping[str, Any], mix: Mix, batch_size: int, options: Options, sizes: Sequence[int]
) -> Plan:
    """Raises BadInput for what cannot be.

    sizes  bytes of each source in memory, by which shuffle=True decides for each
    """
    rank, world_size = part_of(options)
    if options.get("pad_last"):
        raise BadInput(
            "a mixture has no last batch to fill up", 'Leave pad_last out, or take until="all".'
        )
    shuffle = options.get("shuffle", True)
    drop_last = options.get("drop_last")
    drop_last = bool(shuffle) if drop_last is None else drop_last
    whole: Options = {**options, "drop_last": False}
    chosen: list[Rows | None] = []
    orders, offsets, first = [], [], 0
    for (name, source), size in zip(sources.items(), sizes, strict=True):
        chosen.append(_chosen(source, options))
        orders.append(order_of(source, 1, {**whole, "size": size}, chosen[-1]))
        if not orders[-1].rows:
            raise BadInput(f'"{name}" has no sample to mix', "Leave it out.", source=name)
        check_order(orders[-1], 1)
        offsets.append(first)
        first += len(source)
    joint = Order("mix", max(batch_size, 1), batch_size, shuffle=bool(shuffle), drop_last=drop_last)
    check_order(joint, world_size)
    plan = MixPlan(
        mix,
        orders,
        options.get("epochs", 1),
        rank,
        world_size,
        batch=batch_size,
        drop_last=drop_last,
        offsets=offsets,
        chosen=chosen,
    )
    if plan.steps == 0:
        raise BadInput(
            f"a global batch of {batch_size} is more than the mixture gives before its first "
            "source ends",
            'Take a smaller batch size, more epochs, or until="all".',
            batch_size=batch_size,
        )
    return plan


def order_of(source: Any, batch_size: int, options: Options, chosen: Rows | None) -> Order:
    """The order of one source, windows decided."""
    shuffle = options.get("shuffle", True)
    if not any(shuffle is each or shuffle == each for each in _SHUFFLES):
        raise BadInput(
            f"shuffle is {shuffle!r}", 'It is True, False, "whole" or "window".', shuffle=shuffle
        )
    rows = len(source) if chosen is None else len(chosen)
    block, window = _window(source, rows, batch_size, options)
    pad = options.get("pad_last", False)
    drop_last = options.get("drop_last")
    if pad and drop_last:
        raise BadInput(
            "pad_last fills up the batch that drop_last leaves out", "Leave one of them out."
        )
    if drop_last is None:
        drop_last = bool(shuffle) and not pad
    return Order(
        source=source.identity if chosen is None else f"{source.identity}/{content_of(chosen)}",
        rows=rows,
        batch=batch_size,
        seed=options.get("seed", 0),
        shuffle=bool(shuffle),
        drop_last=drop_last,
        block=block,
        window=window,
        also="pad_last" if pad else "",
    )


def _window(source: Any, rows: int, batch_size: int, options: Options) -> tuple[int, int]:
    """(c, w); see `order`."""
    shuffle, wanted = options.get("shuffle", True), options.get("window_rows")
    own = getattr(source, "window_rows", None)
    if wanted is not None and shuffle != "window":
        raise BadInput("window_rows says nothing here", 'Give shuffle="window" with it.')
    if wanted is not None and wanted < 1:
        raise BadInput(f"a window of {wanted} rows", "Give at least one.", window_rows=wanted)
    if not shuffle or shuffle == "whole":
        return 0, 0
    if own is not None:  # rows that lie together belong together
        size = wanted or own(batch_size)
        return size, size
    size = options.get("size", 0)
    if shuffle is True:
        return window_of(rows, size)
    block = 1 << max(0, (BLOCK_BYTES * rows // size if size else _BLOCK_ROWS).bit_length() - 1)
    wanted = wanted or block * WINDOW_BLOCKS
    block = min(block, max(1, wanted // 2))
    return block, -(-wanted // block) * block


def part_of(options: Options) -> tuple[int, int]:
    """(rank, world size). Raises BadInput."""
    check_names(options)
    rank, world_size = options.get("rank", 0), options.get("world_size", 1)
    if not 0 <= rank < world_size:
        raise BadInput(f"there is no rank {rank} among {world_size}", "Count ranks from 0.")
    if (epochs := options.get("epochs", 1)) < 1:
        raise BadInput(f"{epochs} epochs are no epoch", "Give at least one.", epochs=epochs)
    return rank, world_size


def _chosen(source: Any, options: Options) -> Rows | None:
    """The rows that there are for a loader; None: all."""
    aside = options.get("aside", {}).get(source.identity)
    left = None if aside is None else np.setdiff1d(np.arange(len(source)), aside)
    if left is not None and not len(left):
        raise BadInput(
            f"all {len(source)} rows are set aside by expectations",
            "Look at the rule that sets them aside, or at the data.",
        )
    function = options.get("filter")
    if function is None:
        return left
    return chosen_rows(source, function, options.get("index"), options.get("key", ""), left)
