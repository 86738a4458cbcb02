"""Which checkpoints a run may forget. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.base.errors import BadInput
from penstock.records import Checkpoint


def to_drop(
    checkpoints: Iterable[Checkpoint], keep_last: int, origin: int | None = None
) -> list[int]:
    """Steps that may go, oldest first.

    keep_last  how many of the newest stay, at least 1; who falls back past damage needs several
    origin     where a forked run begins: it stays, for without it that run could not begin again
    Those marked best for a metric stay too.
    """
    if keep_last < 1:
        raise BadInput(
            f"keep_last={keep_last} would keep no checkpoint",
            "Give 1 or more; without a checkpoint nothing can be resumed.",
            keep_last=keep_last,
        )
    rows = sorted(checkpoints, key=lambda checkpoint: checkpoint.step)
    steps = sorted({row.step for row in rows})
    keep = set(steps[-keep_last:]) | {row.step for row in rows if row.best is not None}
    keep |= set() if origin is None else {origin}
    return [step for step in steps if step not in keep]
