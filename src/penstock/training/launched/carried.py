"""A loop on its way into the workers of Ray Train, and what it takes along.

Ray pickles the loop and calls it in processes that know nothing of its script: their main module
and their folder are Ray's, and they find no settings of a project. What only the script's process
can tell therefore travels with the loop: the settings, its code, its source as it was.
"""

from __future__ import annotations

import atexit
import functools
import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput, RunStopped
from penstock.jobs.stores import Stores, pinned
from penstock.training.launched import reaching
from penstock.training.wanted import Subject, keep, loop_subject

if TYPE_CHECKING:
    from penstock.training.attached import AttachedRun


@dataclass(frozen=True)
class Carried:
    """variables  the settings, see `reaching.variables`
    mark       by which a worker knows that it reaches the script's stores
    subject    the loop as code
    version    of Penstock
    """

    variables: dict[str, str]
    mark: reaching.Mark
    subject: Subject
    version: str


@dataclass
class Here:
    """A loop that is going on in this process, and the runs that it began. In the loop's thread."""

    subject: Subject
    runs: list[AttachedRun] = field(default_factory=list)

    def over(self, error: BaseException | None) -> None:
        """The loop returned, or raised `error`: so its runs end, as far as they did not."""
        for run in self.runs:
            run.over(error)


_here: Here | None = None


def here() -> Here | None:
    """The loop of this process, which Ray Train called; None outside of it."""
    return _here


class Loop:
    """The user's loop as a trainer gets it: pickled whole, then called in every worker."""

    def __init__(self, loop: Callable[..., Any], carried: Carried) -> None:
        functools.update_wrapper(self, loop)  # trainers look at its signature and name
        self._loop = loop
        self._carried = carried

    def __call__(self, *arguments: Any) -> Any:
        """What the loop returns, and then its runs are over, without `with` and `end`. None where
        a run was stopped: an error would have Ray begin it again.

        Raises BadInput where this worker does not reach what the script reaches, before anything
        of the loop is called; what the loop raises, and what ended a run.
        """
        with _unpacked(self._carried) as found:
            try:
                given = self._loop(*arguments)
            except RunStopped as stop:
                found.over(stop)
                return None
            except BaseException as error:
                found.over(error)
                raise
            found.over(None)
            return given


def carry(opened: Callable[[], Stores], loop: Callable[..., Any]) -> Loop:
    """In the script. What is kept for the loop stays until this process ends, or a run has it.

    opened  gives the script's stores; not called for a loop that is refused
    Raises CannotTravel, BadInput, and what the stores raise.
    """
    subject = loop_subject(loop)
    stores = opened()
    pin = ExitStack()
    pin.enter_context(pinned(stores.meta))
    atexit.register(pin.close)
    subject = replace(subject, kept=keep(subject, stores))
    mark = reaching.mark(stores)
    return Loop(loop, Carried(reaching.variables(stores), mark, subject, _version()))


@contextmanager
def _unpacked(carried: Carried) -> Iterator[Here]:
    global _here
    if carried.version != _version():
        raise BadInput(
            f"this worker has Penstock {_version()}, the script {carried.version}",
            "Install the same version on all nodes.",
        )
    with reaching.settings_of(carried.variables):
        reaching.check(carried.mark)
        before, _here = _here, Here(carried.subject)
        try:
            yield _here
        finally:
            _here = before


def _version() -> str:
    return importlib.metadata.version("penstock")
