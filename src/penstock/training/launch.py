"""`train`: start a run, go on with it, or give what it gave. The script is only a client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from penstock.base.errors import BadInput, NotFound
from penstock.base.interrupts import Interrupts, counted
from penstock.jobs import control
from penstock.jobs.backends import engines
from penstock.jobs.stores import Stores, pinned
from penstock.records import Run
from penstock.records.runs import ENDED
from penstock.training import early
from penstock.training.deciding import Choosing, OnChange, decide, with_weights
from penstock.training.follow import follow, stop_early, tell_skipped
from penstock.training.launched.here import seat_here
from penstock.training.launched.seat import RAY_TRAIN
from penstock.training.wanted import Place, Wanted, subject_of, wanted_of
from penstock.training.watching import OnProgress

Device = Literal["auto", "cpu", "cuda"]
_DEFAULT_SAVE = "auto"


@dataclass(frozen=True)
class Trained:
    """What a run gave.

    model      reference of the (last) published model version, "NAME@VERSION"; None without one
    reused     nothing ran: this very run had finished before
    why        one sentence
    changed    what differs from the attempt before, a line each
    """

    run: Run
    reused: bool
    why: str
    changed: list[str] = field(default_factory=list)

    @property
    def model(self) -> str | None:
        found = self.run.result.get("model")
        return str(found) if found else None

    @property
    def reference(self) -> str:
        """The model's reference. Raises NotFound when the run published none."""
        if self.model is None:
            raise NotFound(
                f'run "{self.run.name}" published no model',
                "Call run.publish(NAME, model, example=…) in the training function.",
            )
        return self.model


def train(
    stores: Stores,
    function: Callable[..., None],
    config: Any = None,
    *,
    name: str | None = None,
    workers: int | tuple[int, int] = 1,
    detach: bool = False,
    fresh: bool = False,
    on_change: OnChange = "continue",
    checkpoint_every: int | str = _DEFAULT_SAVE,
    seed: int = 0,
    threads: int | None = None,
    init_from: str | None = None,
    device: Device = "auto",
    preload: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    on_progress: OnProgress | None = None,
) -> Trained:
    """Train under a name; survives the death of any process, and of the machine.

    Under torchrun or srun this process is one of the ranks, and runs the function itself.

    function          fit(run, config), or fit(run) without a config; at the top level of a file
    config            dataclass, pydantic model, dict, or DictConfig of OmegaConf
    name              of the run; default: the function's name
    workers           ranks; 0: in this process; (low, high): as many as that, and others while it
                      goes on, see `elastic`
    detach            return at once; the run goes on without the script
    fresh             a new run, whatever there is under this name
    on_change         an unfinished run whose code or config changed: "continue" says and records
                      the difference, "refuse" raises Refused, "fork" starts a new run
    checkpoint_every  steps (a number), seconds (text such as "30s"), or "auto": by what a save
                      costs and how often attempts fail; see `interval`
    seed              of initial weights, order of the data, and random numbers
    threads           of each rank; default: the cores, shared out
    init_from         a new run's tracked models begin with these weights: RUN[@STEP or @best], or a
                      model NAME[@VERSION-OR-ALIAS]; optimiser, step and cursor begin anew
    device            "cuda": a GPU for each rank; "cpu"; "auto": GPUs where there is one for each
                      rank. They are claimed, and waited for
    preload           modules that ranks import anyway and that take long, such as "transformers":
                      imported once, before the ranks are forked; see `jobs.preloading`
    say               gets one line at a time, for people
    on_progress       called with `Progress` while ranks of an attached run go on

    Raises UserCodeFailed (the function's own traceback in its facts), RunFailed, RunStopped,
    LeaseHeld (the run is going on elsewhere), Refused, CannotTravel, BadInput; NotFound and Damaged
    where `init_from` names what is not there or not whole.
    """
    seat = seat_here()
    if seat is not None and seat.launcher == RAY_TRAIN:
        raise BadInput(
            "ps.train was called in a worker of Ray Train, which starts no ranks",
            "Begin the run in the loop: with ps.attach(NAME, config) as run.",
        )
    if seat is None and workers != 0:
        engines.check(stores.settings)
    place = Place.of(workers) if seat is None else seat.place

    def wanted() -> Wanted:
        return wanted_of(
            stores,
            subject_of(function),
            config,
            place,
            name=name,
            detach=detach,
            checkpoint_every=checkpoint_every,
            seed=seed,
            threads=threads,
            preload=preload,
        ).on(device, stores)

    if seat is not None:
        from penstock.training.launched.running import train_as_rank

        choosing = Choosing(stores, wanted, fresh, on_change, init_from)
        return Trained(*train_as_rank(stores, seat, function, choosing, say))
    run: Run | None = None
    counting = ExitStack()  # from the first row on, an exception at any line could leave it behind
    try:
        with pinned(stores.meta):
            asked, notes = with_weights(stores, wanted(), init_from, fresh)
            interrupts = counting.enter_context(counted())
            found = decide(stores, asked, notes, fresh, on_change)
            run = found.run
        if workers == 0:
            counting.close()  # the function runs here: Ctrl-C raises in it
        found.tell(say)
        if found.reused:
            return Trained(run, True, found.why)
        ended = _carry_out(stores, run, workers, detach, say, on_progress, interrupts)
        tell_skipped(ended, say)
        return Trained(ended, False, found.why, found.changed)
    except KeyboardInterrupt:
        if run is None or run.state in ENDED:
            raise
        raise stop_early(stores, run) from None
    finally:
        counting.close()


def _carry_out(
    stores: Stores,
    run: Run,
    workers: int | tuple[int, int],
    detach: bool,
    say: Callable[[str], None],
    on_progress: OnProgress | None,
    interrupts: Interrupts,
) -> Run:
    if workers == 0:
        if interrupts.count:
            raise KeyboardInterrupt
        from penstock.training.inline import Inline

        early.note(stores.layout, None)
        with pinned(stores.meta):
            return Inline(stores, run, say).run()
    with stores.meta.read() as db:
        cursor = db.last_event()
        going_on = control.owner(db.find_lease(f"run/{run.id}"), db.now()) is not None
    child = None if going_on else early.start(stores, run, alone=detach)
    if detach:
        if interrupts.count:
            raise KeyboardInterrupt
        say(f"detached; follow it: penstock runs logs -f {run.name}")
        return run
    if on_progress is not None:
        say(f"what its ranks print: penstock runs logs -f {run.name}")
    return follow(stores, run, child, cursor, say, on_progress, interrupts)
