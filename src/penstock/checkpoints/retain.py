"""Which checkpoints a run may forget. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.base.errors import BadInput
from penstock.records import Checkpoint


def to_drop(
    checkpoints: Iterable[Checkpoint],
    keep_last: int,
    origin: int | None = None,
    keep_every: int | None = None,
) -> list[int]:
    """Steps that may go, oldest first.

    keep_last   how many of the newest stay, at least 1; who falls back past damage needs several
    origin      where a forked run begins: it stays, for without it that run could not begin again
    keep_every  of the steps n, n + 1, …, 2n - 1, then of 2n, …, the first one that is there stays:
                a checkpoint that comes by time is seldom one of an exact n-th step
    Those that are pinned or marked best for a metric stay too. Raises BadInput.
    """
    for name, value in (("keep_last", keep_last), ("keep_every", keep_every)):
        if value is not None and value < 1:
            raise BadInput(
                f"{name}={value} would keep no checkpoint",
                "Give 1 or more; without a checkpoint nothing can be resumed.",
                **{name: value},
            )
    rows = sorted(checkpoints, key=lambda checkpoint: checkpoint.step)
    steps = sorted({row.step for row in rows})
    keep = set(steps[-keep_last:])
    keep |= {row.step for row in rows if row.best is not None or row.pinned is not None}
    keep |= set() if origin is None else {origin}
    keep |= set() if keep_every is None else _firsts(steps, keep_every)
    return [step for step in steps if step not in keep]


def _firsts(steps: list[int], every: int) -> set[int]:
    """The first of every `every` steps; what comes before the first n-th step is none of them."""
    firsts: dict[int, int] = {}
    for step in steps:
        if step >= every:
            firsts.setdefault(step // every, step)
    return set(firsts.values())
