"""How many ranks a run may have, and how many it has next. Pure.

A run with `workers=(low, high)` computes every global batch in V fixed micro-batches, so that any
number of ranks that divides V computes the same. V is `micro_batches` of `run.steps`, and `high`
where the loop says none.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.base.errors import BadInput

PATIENCE = 2  # failures in a row without a newer checkpoint, and a rank less is tried


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of ranks that a run may have.

    low, high  both included
    parts      V, once the loop has said it
    ordered    its gradients are summed in a binary tree, so sizes are powers of two
    """

    low: int
    high: int
    parts: int | None = None
    ordered: bool = False

    def fits(self, size: int) -> bool:
        if not self.low <= size <= self.high:
            return False
        divides = (self.parts or self.high) % size == 0
        return divides and not (self.ordered and size & (size - 1))

    def at_most(self, size: int) -> int | None:
        """The largest that fits and is no larger; None without one."""
        return next((each for each in range(size, 0, -1) if self.fits(each)), None)

    def next(self, now: int, wanted: int | None, failures: int = 0, room: int | None = None) -> int:
        """For the attempt that begins.

        now       the ranks of the one before
        wanted    asked for since then
        room      ranks that there is room for at once, where nodes come and go: as many of them as
                  are wanted, and `high` unless somebody said otherwise
        failures  in a row without a newer checkpoint: a rank whose device is broken would fail for
                  ever, so from time to time a smaller gang is tried
        """
        asked = wanted
        if asked is None:
            asked = now if room is None else self.high
        if room is not None:
            asked = max(self.low, min(asked, room))
        found = self.at_most(asked) or self.at_most(self.high) or now
        if failures and failures % PATIENCE == 0:
            return self.at_most(min(found, now) - 1) or found
        return found


def read(workers: int | tuple[int, int]) -> Sizes | None:
    """The sizes that `workers=` asks for; None for a fixed number. Raises BadInput."""
    if isinstance(workers, int):
        return None
    if len(workers) != 2 or not all(isinstance(each, int) for each in workers):
        raise BadInput(f"workers={workers} is no range", "Give two numbers, such as (1, 8).")
    low, high = workers
    if not 1 <= low <= high:
        raise BadInput(
            f"workers={workers} is no range of ranks", "Give the fewest first: at least 1."
        )
    return Sizes(low, high)
