"""What a gang does next. Pure: no clock, no network, no store.

The controller gathers what happened into a `Poll`, asks `decide`, and carries out the answer. The
budget: `crashes_left` counts failures in a row without a newer committed checkpoint; a failure of
the user's own code is tried again once, and the same exception at the same step ends the run.
Hangs have a budget of their own, because each costs its waiting time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

CRASHES = 10  # failures in a row without progress
HANGS = 3  # hangs in a row without progress end the run
SETTLE = 0.1  # seconds to wait, when a rank raised, for a death that explains it
GRACE = 10.0  # seconds that draining ranks have


@dataclass(frozen=True, slots=True)
class Exit:
    """A rank that ended without having said goodbye."""

    rank: int
    signal: str | None
    code: int | None
    seen_at: float = 0.0

    @property
    def cause(self) -> str:
        if self.signal:
            return f"rank {self.rank} died by {self.signal}"
        if self.code is None:
            return f"rank {self.rank} died with its image"
        return f"rank {self.rank} left with exit code {self.code}"


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception that left the user's function on one rank."""

    rank: int
    step: int
    error: dict[str, Any]

    @property
    def signature(self) -> tuple[str, int]:
        return str(self.error.get("facts", {}).get("signature", self.error["what"])), self.step


@dataclass(frozen=True, slots=True)
class Hung:
    """A gang that shows no sign of life, and who keeps it waiting; see `penstock.jobs.hang`.

    where  the rank's line, "train.py:12 in fit", or why there is none
    told   the whole account: every rank's step, phase, state and line
    """

    rank: int
    step: int
    where: str
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def cause(self) -> str:
        return f"rank {self.rank} hung at step {self.step} ({self.where})"


@dataclass(frozen=True, slots=True)
class Budget:
    """committed  the newest committed step when the budget was last full
    hangs  in a row since then
    """

    crashes_left: int = CRASHES
    hangs: int = 0
    committed: int = 0
    last_error: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Starting:
    """A gang was asked for. Nothing runs yet, or not all of it."""

    attempt: int
    budget: Budget


@dataclass(frozen=True, slots=True)
class Running:
    attempt: int
    budget: Budget


@dataclass(frozen=True, slots=True)
class Settling:
    """A rank raised. Did another one's death make it raise? A short wait tells."""

    attempt: int
    budget: Budget
    raised: Raised
    until: float


@dataclass(frozen=True, slots=True)
class Draining:
    """All ranks were asked to save and leave. `why` becomes the attempt's cause."""

    attempt: int
    budget: Budget
    why: str
    deadline: float


@dataclass(frozen=True, slots=True)
class Clearing:
    """The attempt is over; its processes are being killed before the next step is taken."""

    attempt: int
    budget: Budget
    then: Literal["start", "stop", "fail"]
    cause: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    outcome: Literal["finished", "stopped", "failed"]
    detail: dict[str, Any] = field(default_factory=dict)


State = Starting | Running | Settling | Draining | Clearing | Ended


@dataclass(frozen=True, slots=True)
class Poll:
    """What is known now, about the current attempt only.

    at         seconds on the controller's monotonic clock
    committed  newest committed checkpoint's step
    finished   every rank's function returned
    left       every rank drained or returned
    gone       no process of the gang is left
    stop       why the run should stop, if it should
    broken     why no gang can be started at all
    """

    at: float
    committed: int = 0
    started: bool = False
    exits: tuple[Exit, ...] = ()
    raised: tuple[Raised, ...] = ()
    hung: Hung | None = None
    finished: bool = False
    left: bool = False
    gone: bool = False
    agent_lost: bool = False
    stop: str | None = None
    kill: bool = False
    broken: dict[str, Any] | None = None


def decide(state: State, poll: Poll) -> State:
    """Return the next state; the caller carries out the difference and records it."""
    match state:
        case Ended():
            return state
        case Clearing():
            nothing_left = poll.gone or poll.agent_lost or poll.broken is not None
            return _cleared(state, poll) if nothing_left else state
        case _ if poll.broken is not None:
            return Clearing(state.attempt, state.budget, "fail", "cannot start", poll.broken)
        case _ if poll.finished:
            return Ended("finished")
        case _ if poll.kill:
            return Clearing(state.attempt, state.budget, "stop", "killed on request")
        case Draining() if poll.left:
            return Ended("stopped", {"why": state.why})
        case Draining() if poll.at > state.deadline or _is_troubled(poll):
            return Clearing(state.attempt, state.budget, "stop", state.why)
        case Draining():
            return state
        case _ if poll.agent_lost:
            return _crashed(state.attempt, state.budget, poll, "the agent died", {})
        case _ if poll.exits:
            first = poll.exits[0]
            facts = {"rank": first.rank, "signal": first.signal, "code": first.code}
            detail = {**facts, "seen_at": first.seen_at}
            return _crashed(state.attempt, state.budget, poll, first.cause, detail)
        case Settling() if poll.at >= state.until:
            return _failed_by_user(state, poll)
        case Settling():
            return state
        case _ if poll.raised:
            return Settling(state.attempt, state.budget, poll.raised[0], poll.at + SETTLE)
        case _ if poll.hung is not None:
            return _hung(state.attempt, state.budget, poll, poll.hung)
        case _ if poll.stop is not None:
            return Draining(state.attempt, state.budget, poll.stop, poll.at + GRACE)
        case Starting() if poll.started:
            return Running(state.attempt, state.budget)
        case _:
            return state


def _is_troubled(poll: Poll) -> bool:
    """A gang that was asked to leave and cannot any more."""
    return bool(poll.exits or poll.raised) or poll.agent_lost or poll.hung is not None


def _refilled(budget: Budget, poll: Poll) -> Budget:
    if poll.committed > budget.committed:
        return replace(budget, crashes_left=CRASHES, hangs=0, committed=poll.committed)
    return budget


def _crashed(
    attempt: int, budget: Budget, poll: Poll, cause: str, detail: dict[str, Any]
) -> Clearing:
    budget = _refilled(budget, poll)
    if budget.crashes_left == 0:
        what = f"{cause}; {CRASHES + 1} failures in a row without a newer checkpoint"
        fix = "Look at the ranks' logs: penstock runs logs NAME. Then: penstock runs resume NAME."
        error = {"code": "run-failed", "what": what, "fix": fix, "facts": detail}
        return Clearing(attempt, budget, "fail", cause, error)
    left = replace(budget, crashes_left=budget.crashes_left - 1)
    return Clearing(attempt, left, "start", cause, detail)


def _hung(attempt: int, budget: Budget, poll: Poll, hung: Hung) -> Clearing:
    budget = _refilled(budget, poll)
    budget = replace(budget, hangs=budget.hangs + 1)
    if budget.hangs < HANGS:
        return Clearing(attempt, budget, "start", hung.cause, hung.told)
    what = f"{hung.cause}; {HANGS} hangs in a row without a newer checkpoint"
    fix = (
        "Its stacks are in the run's logs (rank-N.stacks). Mend the function and run the script "
        "again; if its steps just take that long, set hang_seconds higher, or to off."
    )
    error = {"code": "run-failed", "what": what, "fix": fix, "facts": hung.told}
    return Clearing(attempt, budget, "fail", hung.cause, error)


def _failed_by_user(state: Settling, poll: Poll) -> Clearing:
    raised = state.raised
    budget = _refilled(state.budget, poll)
    cause = f"rank {raised.rank} raised at step {raised.step}"
    again = budget.last_error == raised.signature
    if again or budget.crashes_left == 0 or raised.error.get("code") != "user-code":
        return Clearing(state.attempt, budget, "fail", cause, raised.error)
    left = replace(budget, crashes_left=budget.crashes_left - 1, last_error=raised.signature)
    facts = {"rank": raised.rank, "step": raised.step, "what": raised.error["what"]}
    return Clearing(state.attempt, left, "start", cause, facts)


def _cleared(state: Clearing, poll: Poll) -> State:
    if state.then == "start" and poll.stop is None:
        return Starting(state.attempt + 1, state.budget)
    if state.then == "fail":
        return Ended("failed", state.detail)
    return Ended("stopped", {"why": poll.stop or state.cause})
