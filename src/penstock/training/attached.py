"""`attach`: the same `run` for a loop that stands in a script, a notebook, or another framework.

Nothing is started: the run lives in this process, or, under a launcher, in all of its processes.
"""

from __future__ import annotations

import atexit
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from penstock.base.errors import PenstockError, UserCodeFailed
from penstock.base.layout import Layout
from penstock.blobs import open_blobs
from penstock.jobs import compiled
from penstock.jobs.link import Link
from penstock.jobs.stores import Stores, pinned
from penstock.records import Run as Row
from penstock.signals import Emitter
from penstock.training import randomness
from penstock.training.deciding import Choosing, Decided, OnChange
from penstock.training.ended import EndedLink
from penstock.training.inline import Inline
from penstock.training.launched import carried, raytrain
from penstock.training.launched.here import seat_here
from penstock.training.launched.seat import RAY_TRAIN, Seat
from penstock.training.rank import result_of
from penstock.training.run import Drained, Run
from penstock.training.wanted import Place, Wanted, script_subject, wanted_of


class Session(Protocol):
    """Who owns the run, seen from its function's side. Exactly one of these ends it."""

    def finished(self, result: dict[str, Any]) -> Row: ...
    def drained(self) -> BaseException: ...
    def raised(self, error: PenstockError) -> PenstockError: ...
    def left(self, why: str) -> Any: ...


class AttachedRun(Run):
    """A run whose loop is not a function of its own.

    finished  it had finished before, with the same code and config: `run.steps` restores what is
              tracked and gives no step
    As a context manager it ends with the block. Otherwise `end` ends it, or the interpreter does:
    finished when its loop came to its end, else stopped, to be gone on with.
    """

    def __init__(
        self,
        link: Link,
        payload: dict[str, Any],
        emitter: Any,
        session: Session | None,
    ) -> None:
        layout = Layout(Path(payload["home"]))
        super().__init__(link, open_blobs(payload["blobs"]), layout, payload, emitter)
        self.finished = session is None
        self._session = session
        self._held = ExitStack()
        self._looped = False
        self._script = hasattr(sys.modules["__main__"], "__file__")  # gone when the script is over
        atexit.register(self._at_exit)

    def hold(self, held: ExitStack) -> None:
        """What ends with the run."""
        self._held = held

    def closes(self, stores: Stores) -> None:
        """They were opened for this run alone."""
        last = ExitStack()
        last.callback(stores.close)
        last.push(self._held)
        self._held = last

    def steps(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        """See `Run.steps`. Raises RunStopped when the run is to stop, after saving."""
        if self.finished:
            self._restore()
            return
        try:
            yield from super().steps(*arguments, **options)
        except Drained:
            raise self._drained() from None
        self._looped = True

    def end(self) -> None:
        """The run is finished. Waits for all ranks. A second call does nothing."""
        session = self._close()
        if session is not None:
            session.finished(result_of(self))
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            self.end()
        else:
            self._failed(error)

    def _drained(self) -> BaseException:
        session = self._close()
        assert session is not None
        error = session.drained()
        self._held.close()
        return error

    def _failed(self, error: BaseException) -> None:
        """Record it; what is raised stays what the loop raised."""
        session = self._close()
        if session is not None and isinstance(error, Exception):
            session.raised(_known(error, self.rank, self.global_step))
        elif session is not None:
            session.left("Ctrl-C" if isinstance(error, KeyboardInterrupt) else type(error).__name__)
        self._held.close()

    def _close(self) -> Session | None:
        """Once: nothing is logged or read any more."""
        session, self._session = self._session, None
        atexit.unregister(self._at_exit)
        self.close()
        self._emitter.close()
        return session

    def _at_exit(self) -> None:
        error = getattr(sys, "last_value", None)
        self.over(error if self._script else None)  # in a notebook it may be of any cell

    def over(self, error: BaseException | None) -> None:
        """What is around the loop came to its end, or to an error; nothing if the run was over."""
        if error is not None:
            self._failed(error)
        elif self._looped or self.finished:
            self.end()
        else:
            session = self._close()
            if session is not None:
                session.left("the script ended before its loop did")
            self._held.close()


def attach(
    stores: Stores,
    name: str,
    config: Any = None,
    *,
    fresh: bool = False,
    on_change: OnChange = "continue",
    checkpoint_every: int | str = "auto",
    seed: int = 0,
    init_from: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> AttachedRun:
    """Begin a run in this process, go on with it, or find it finished; as `launch.train` does.

    Code is that of the running script, or of the loop that Ray Train called. Random numbers are
    seeded, equal on all ranks.
    Raises LeaseHeld, RunStopped, Refused, CannotTravel, BadInput, NotFound, Damaged.
    """
    seat, loop = seat_here(), carried.here()
    where = Place(0) if seat is None else seat.place
    where = replace(where, set=torch.get_num_threads())

    def wanted() -> Wanted:
        return wanted_of(
            stores,
            script_subject() if loop is None else loop.subject,
            config,
            where,
            name=name,
            detach=False,
            checkpoint_every=checkpoint_every,
            seed=seed,
            threads=None,
        )

    choosing = Choosing(stores, wanted, fresh, on_change, init_from)
    with ExitStack() as held:
        held.enter_context(pinned(stores.meta))
        if seat is None:
            found, begun = _begin_here(stores, choosing, say)
        else:
            found, begun = _begin_as_rank(stores, seat, choosing, say, held)
        if begun is None:
            return _remembered(_of_ended(stores, found, held.pop_all()))
        session, link, payload = begun
        try:
            torch.set_num_threads(payload["threads"])
            compiled.use(stores.layout)
            randomness.seed_all(payload["seed"])
            signals = stores.layout.signals(link.run_id)
            emitter = Emitter(signals, link.run_id, link.rank, link.generation)
            run = AttachedRun(link, payload, emitter, session)
        except BaseException as error:
            session.left(type(error).__name__)
            raise
        run.hold(held.pop_all())
        return _remembered(run)


def _remembered(run: AttachedRun) -> AttachedRun:
    """By the loop around it, which then ends it."""
    if (loop := carried.here()) is not None:
        loop.runs.append(run)
    return run


_Begun = tuple[Session, Link, dict[str, Any]]


def _begin_here(
    stores: Stores, choosing: Choosing, say: Callable[[str], None]
) -> tuple[Decided, _Begun | None]:
    found = choosing()
    found.tell(say)
    if found.reused:
        return found, None
    inline = Inline(stores, found.run, say)
    return found, (inline, inline, inline.begin())


def _begin_as_rank(
    stores: Stores, seat: Seat, choosing: Choosing, say: Callable[[str], None], held: ExitStack
) -> tuple[Decided, _Begun | None]:
    from penstock.training.launched import signals
    from penstock.training.launched.launching import Launched

    tell = say if seat.rank == 0 else lambda line: None
    launched = Launched(stores, seat, tell)
    held.enter_context(signals.heard(launched.leave))
    found = launched.begin(choosing, lambda decided: decided.tell(tell))
    if found.reused:
        return found, None
    launched.join()
    theirs = raytrain.device() if seat.launcher == RAY_TRAIN else {}
    return found, (launched, launched.link, {**launched.payload, **theirs})


def _of_ended(stores: Stores, found: Decided, held: ExitStack) -> AttachedRun:
    link = EndedLink(stores, found.run)
    run = AttachedRun(link, link.payload(), NoEmitter(), None)
    run.hold(held)
    return run


class NoEmitter:
    """Of a run that is finished: what is logged once more is told to nobody."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: None


def _known(error: Exception, rank: int, step: int) -> PenstockError:
    if isinstance(error, PenstockError):
        return error
    told = f"{type(error).__name__}: {error}"
    return UserCodeFailed(
        f"{told} (rank {rank}, step {step})",
        "Mend the script and run it again: it continues from the last checkpoint.",
        rank=rank,
        step=step,
        signature=told,
        traceback="".join(traceback.format_exception(error)),
    )
