"""What a gang does next. Pure: no clock, no network, no store.

The controller gathers what happened into a `Poll`, asks `decide`, and carries out the answer. Each
cause of an attempt's end has a budget of its own (`penstock.jobs.budgets`); a failure of the
user's own code is tried again once, and the same exception at the same step ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from penstock.jobs.budgets import LIMITS, Budget, Cause

DAMAGED = 75  # exit code of a rank that met damage in what it was to begin with
SETTLE = 0.1  # seconds to wait, when a rank raised, for a death that explains it
GRACE = 10.0  # seconds that draining ranks have


@dataclass(frozen=True, slots=True)
class Exit:
    """A rank that ended without having said goodbye.

    oom  the kernel killed it, because the memory of its group was spent
    """

    rank: int
    signal: str | None
    code: int | None
    seen_at: float = 0.0
    oom: bool = False

    @property
    def budget(self) -> Cause:
        if self.oom:
            return "memory"
        return "damage" if self.code == DAMAGED else "crash"

    @property
    def cause(self) -> str:
        if self.oom:
            return f"rank {self.rank} was killed by the kernel: out of memory"
        if self.code == DAMAGED:
            return f"rank {self.rank} met a damaged checkpoint"
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
    then: Literal["start", "stop"] = "stop"  # start: with another number of ranks


@dataclass(frozen=True, slots=True)
class Clearing:
    """The attempt is over; its processes are being killed before the next step is taken."""

    attempt: int
    budget: Budget
    then: Literal["start", "stop", "fail", "leave"]
    cause: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    outcome: Literal["finished", "stopped", "failed", "preempted", "interrupted"]
    detail: dict[str, Any] = field(default_factory=dict)


State = Starting | Running | Settling | Draining | Clearing | Ended


@dataclass(frozen=True, slots=True)
class Poll:
    """What is known now, about the current attempt only.

    at         seconds on the controller's monotonic clock
    committed  newest committed checkpoint's step
    kept       newest step whose state the agent holds whole in memory
    finished   every rank's function returned
    left       every rank drained or returned
    gone       no process of the gang is left
    stop       why the run should stop, if it should
    grace      seconds that ranks then have to save and leave
    preempted  it should stop because its place is taken away, not because somebody wants its end
    resize     why a gang of another size should take over, if it should
    short      why a gang cannot be as large as was asked for, but may be smaller
    broken     why no gang can be started at all
    away       why none can be started now: those who would give it places do not answer
    """

    at: float
    committed: int = 0
    kept: int = 0
    started: bool = False
    exits: tuple[Exit, ...] = ()
    raised: tuple[Raised, ...] = ()
    hung: Hung | None = None
    finished: bool = False
    left: bool = False
    gone: bool = False
    agent_lost: bool = False
    stop: str | None = None
    grace: float = GRACE
    preempted: bool = False
    kill: bool = False
    resize: str | None = None
    short: str | None = None
    broken: dict[str, Any] | None = None
    away: dict[str, Any] | None = None


def decide(state: State, poll: Poll) -> State:
    """Return the next state; the caller carries out the difference and records it."""
    match state:
        case Ended():
            return state
        case Clearing():
            begun = poll.broken is None and poll.away is None
            return _cleared(state, poll) if poll.gone or poll.agent_lost or not begun else state
        case _ if poll.broken is not None:
            return Clearing(state.attempt, state.budget, "fail", "cannot start", poll.broken)
        case _ if poll.away is not None:
            return Clearing(state.attempt, state.budget, "leave", "interrupted", poll.away)
        case _ if poll.finished:
            return Ended("finished")
        case _ if poll.kill:
            return Clearing(state.attempt, state.budget, "stop", "killed on request")
        case Draining(then="start") if poll.stop is not None:
            return replace(state, then="stop", why=poll.stop, deadline=poll.at + poll.grace)
        case Draining(then="start") if poll.left:
            return Clearing(state.attempt, state.budget, "start", state.why)
        case Draining() if poll.left:
            return _stopped(poll, state.why)
        case Draining() if poll.at > state.deadline or _is_troubled(poll):
            return Clearing(state.attempt, state.budget, state.then, state.why)
        case Draining():
            return state
        case _ if poll.agent_lost:
            return _failed(state, poll, "agent", "the agent died", {})
        case _ if poll.exits:
            first = poll.exits[0]
            facts = {"rank": first.rank, "signal": first.signal, "code": first.code}
            detail = {**facts, "seen_at": first.seen_at}
            return _failed(state, poll, first.budget, first.cause, detail)
        case Settling() if poll.at >= state.until:
            return _failed_by_user(state, poll)
        case Settling():
            return state
        case _ if poll.raised:
            return Settling(state.attempt, state.budget, poll.raised[0], poll.at + SETTLE)
        case _ if poll.hung is not None:
            return _failed(state, poll, "hang", poll.hung.cause, poll.hung.told)
        case Starting() if poll.stop is not None and not poll.started:
            return Clearing(state.attempt, state.budget, "stop", poll.stop)  # nobody could save
        case _ if poll.stop is not None:
            return Draining(state.attempt, state.budget, poll.stop, poll.at + poll.grace)
        case Running() if poll.resize is not None:
            until = poll.at + poll.grace
            return Draining(state.attempt, state.budget, poll.resize, until, "start")
        case Starting() if poll.short is not None:
            return Clearing(state.attempt, state.budget, "start", poll.short)
        case Starting() if poll.started:
            return Running(state.attempt, state.budget)
        case _:
            return state


def _is_troubled(poll: Poll) -> bool:
    """A gang that was asked to leave and cannot any more."""
    return bool(poll.exits or poll.raised) or poll.agent_lost or poll.hung is not None


_FIXES: dict[Cause, str] = {
    "hang": "Its stacks are in the run's logs (rank-N.stacks). Mend the function and run the "
    "script again; if its steps just take that long, set hang_seconds higher, or to off.",
    "memory": "Make what a step holds smaller (more micro_batches, a smaller batch or model, fewer "
    "workers), and run the script again.",
    "gradients": "Lower the learning rate or clip; then run the script again, or fork an earlier "
    "checkpoint: penstock runs fork NAME@STEP lr=...",
}
_LOOK = "Look at the ranks' logs: penstock runs logs NAME. Then: penstock runs resume NAME."
_NAMES: dict[Cause, str] = {
    "hang": "hangs",
    "memory": "times without memory",
    "damage": "damaged checkpoints",
    "gradients": "times of unhealthy gradients",
}


def _failed(
    state: Starting | Running | Settling,
    poll: Poll,
    cause: Cause,
    what: str,
    detail: dict[str, Any],
    error: dict[str, Any] | None = None,
) -> Clearing:
    """Another attempt while the cause's budget lasts, and then the end, with `error` if the rank
    gave one."""
    budget = state.budget.refilled(poll.committed, poll.kept)
    left = budget.spend(cause)
    if left is not None:
        return Clearing(state.attempt, left, "start", what, detail)
    times = f"{LIMITS[cause] + 1} {_NAMES.get(cause, 'failures')} in a row"
    facts = {
        "code": "run-failed",
        "fix": _FIXES.get(cause, _LOOK),
        "facts": detail,
        **(error or {}),
    }
    whole = {
        **facts,
        "what": f"{(error or {}).get('what', what)}; {times} without a newer checkpoint",
    }
    return Clearing(state.attempt, budget, "fail", what, whole)


# Errors that a rank raised and that have a budget, by their code.
_RAISED: dict[str, Cause] = {"out-of-memory": "memory", "gradients-unhealthy": "gradients"}


def _failed_by_user(state: Settling, poll: Poll) -> Clearing:
    raised, code = state.raised, state.raised.error.get("code")
    cause = f"rank {raised.rank} raised at step {raised.step}"
    facts = {"rank": raised.rank, "step": raised.step, "what": raised.error["what"]}
    if code in _RAISED:
        return _failed(state, poll, _RAISED[code], cause, facts, raised.error)
    budget = state.budget.refilled(poll.committed, poll.kept)
    spent = budget.spend("crash")
    again = budget.last_error == raised.signature
    if again or spent is None or code != "user-code":
        return Clearing(state.attempt, budget, "fail", cause, raised.error)
    left = replace(spent, last_error=raised.signature)
    return Clearing(state.attempt, left, "start", cause, facts)


def _cleared(state: Clearing, poll: Poll) -> State:
    if state.then == "start" and poll.stop is None:
        return Starting(state.attempt + 1, state.budget)
    if state.then == "fail":
        return Ended("failed", state.detail)
    if state.then == "leave" and poll.stop is None:
        return Ended("interrupted", {"why": state.detail["what"]})
    return _stopped(poll, poll.stop or state.cause)


def _stopped(poll: Poll, why: str) -> Ended:
    kept = poll.preempted and not poll.kill
    return Ended("preempted" if kept else "stopped", {"why": why})
