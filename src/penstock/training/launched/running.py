"""`train` in a rank that a launcher started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.base.errors import PenstockError
from penstock.jobs.source import locate
from penstock.jobs.stores import Stores, pinned
from penstock.records import Run as Row
from penstock.training.deciding import Decided
from penstock.training.follow import tell_skipped
from penstock.training.launched import signals
from penstock.training.launched.launching import Launched
from penstock.training.launched.seat import Seat
from penstock.training.launched.watch import is_debugged
from penstock.training.rank import execute
from penstock.training.run import Drained


def train_as_rank(
    stores: Stores,
    seat: Seat,
    function: Any,
    choose: Callable[[], Decided],
    say: Callable[[str], None],
) -> tuple[Row, bool, str, list[str]]:
    """The run's row, whether nothing ran, why, and what changed: the same on all ranks.

    Raises on all ranks what rank 0's decision raises, and what the function raises on any. Where
    the run was stopped, or preempted under SLURM, the script ends with exit code 0.
    """
    folders = None if is_debugged() else [str(locate(function, here=True).root)]
    rank = Launched(stores, seat, say if seat.rank == 0 else lambda line: None, folders)
    with pinned(stores.meta), signals.heard(rank.leave):
        found = rank.begin(choose, lambda decided: decided.tell(say))
        if found.reused:
            return found.run, True, found.why, []
        ended = _carry_out(rank, function)
    if seat.rank == 0:
        tell_skipped(ended, say)
    return ended, False, found.why, found.changed


def _carry_out(rank: Launched, function: Any) -> Row:
    try:
        rank.join()
        result = execute(rank.link, rank.payload, function)
    except Drained:
        raise rank.drained() from None
    except PenstockError as error:
        what = rank.raised(error)
        raise what from (None if what is error else error)
    except BaseException as error:
        rank.left("Ctrl-C" if isinstance(error, KeyboardInterrupt) else type(error).__name__)
        raise
    return rank.finished(result)
