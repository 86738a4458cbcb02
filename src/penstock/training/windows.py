"""Where a run goes back to when its gradients stay unhealthy, and which steps it then leaves out.

A window (after, until] is left out: the run begins again with the state of step `after`, and its
batches up to step `until` are drawn and dropped. Steps keep their numbers, so batch k is still
that of step k. Windows are kept in the run's row: every later attempt leaves them out too. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Window:
    """after  the step whose state is gone back to; 0: the beginning
    first  the first unhealthy step, in after + 1 .. until
    until  the last step that is left out
    """

    after: int
    first: int
    until: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def go_back(
    checkpoints: Iterable[int],
    known: Sequence[Window],
    first: int,
    until: int,
    origin: int = 0,
) -> Window:
    """The window to leave out.

    checkpoints  steps that have one
    known        windows that are left out already
    first        the first of the unhealthy steps in a row, `until` the last
    origin       the step that a forked run begins at: nothing lies before it

    It goes back to the newest checkpoint before `first`. Where the trouble began within as many
    steps after a known window as it lasted, that window did not reach far enough: then it goes
    back to one before that window's.
    """
    limit = first
    for window in known:
        if window.until < first <= window.until + 2 * (until - first + 1):
            limit = min(limit, max(window.after, origin + 1))
    before = [step for step in checkpoints if origin <= step < limit]
    return Window(max(before, default=origin), first, until)


def is_inside(windows: Iterable[Window], step: int) -> bool:
    """Whether the state of this step may be one that was gone back from."""
    return any(window.after < step <= window.until for window in windows)


def left_out(windows: Iterable[Window], step: int) -> list[tuple[int, int]]:
    """[(first, last)] of the steps beyond `step` that are left out."""
    return [
        (max(window.after, step) + 1, window.until) for window in windows if window.until > step
    ]


def read(result: dict[str, Any]) -> list[Window]:
    """The windows of a run, from its row's `result`."""
    return [Window(**window) for window in result.get("left_out", ())]
