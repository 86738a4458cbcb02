"""From a run's rows and events to the periods of its life: one for each attempt, from its start
(the first: from the run's creation) to the next one's start, or to the run's end, or to now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.records import Attempt, Event, Run

_CLEAN = frozenset(
    {"run.stopped", "run.failed", "run.finished", "run.preempted", "run.interrupted"}
)


@dataclass(frozen=True, slots=True)
class Period:
    """One attempt and what came of it; seconds since 1970, start <= verdict <= end.

    ranks    of this attempt
    preface  class of the time before its first step: "start-up", or "recovery" after a failure
    verdict  when it was over: a death or a hang was found, or it ended; None: it goes on
    failed   it did not end by itself, so that the step at hand was lost
    silent   nobody saw its end (all its processes died): it lasted as long as its ranks told
    hung     rank -> seconds since 1970 of its last sign of life, where it ended by a hang
    after    class of the time from the verdict on: "recovery" up to the next attempt, "ending" up
             to the run's end at `over`; what follows is idle
    """

    number: int
    generation: int
    ranks: int
    start: float
    end: float
    preface: str
    verdict: float | None = None
    failed: bool = False
    silent: bool = False
    hung: dict[int, float] = field(default_factory=dict)
    after: str = "ending"
    over: float | None = None


def periods(
    run: Run, attempts: Sequence[Attempt], events: Sequence[Event], now: float, alive: bool
) -> list[Period]:
    """In order, without a gap between them.

    alive  somebody carries the run out, or will: it is pending, running or stopping, not
           interrupted. What is not alive and not ended has had no end since its last sign of life
    """
    over = now if run.ended_at is None else run.ended_at
    first = min([run.created_at, *(each.started_at for each in attempts)])
    if not attempts:
        waits = "start-up" if alive else "idle"
        return [Period(0, 0, _world(run), first, max(first, over), waits)]
    starts = [first, *(each.started_at for each in attempts[1:])]
    for i in range(1, len(starts)):  # a clock that was set back
        starts[i] = max(starts[i], starts[i - 1])
    ends = [*starts[1:], max(over, starts[-1])]
    found: list[Period] = []
    preface = "start-up"
    for attempt, start, end in zip(attempts, starts, ends, strict=True):
        last = attempt is attempts[-1]
        mine = [each for each in events if each.body.get("attempt") == attempt.number]
        found.append(_period(run, attempt, mine, events, start, end, preface, last, alive))
        preface = "recovery" if found[-1].failed else "start-up"
    return found


def _period(
    run: Run,
    attempt: Attempt,
    mine: Sequence[Event],
    events: Sequence[Event],
    start: float,
    end: float,
    preface: str,
    last: bool,
    alive: bool,
) -> Period:
    def within(at: float) -> float:
        return min(max(at, start), end)

    ranks = next((len(e.body["pids"]) for e in mine if e.kind == "gang.started"), 0) or _world(run)
    base: dict[str, Any] = {
        "number": attempt.number,
        "generation": attempt.generation,
        "ranks": ranks,
        "start": start,
        "end": end,
        "preface": preface,
    }
    if attempt.cause == "interrupted" or (attempt.ended_at is None and not (last and alive)):
        return Period(**base, verdict=end, failed=True, silent=True, after="idle")
    verdicts = [within(_seen(each)) for each in mine if each.kind in ("rank.died", "rank.hung")]
    if attempt.ended_at is not None:
        verdicts.append(within(attempt.ended_at))
    if not verdicts:
        return Period(**base)
    verdict = min(verdicts)
    ended = [each for each in events if each.kind in _CLEAN and verdict <= each.at <= end]
    going_on = (not last or run.ended_at is None) and not ended
    failed = going_on or any(each.kind == "rank.died" for each in mine) or _is_failure(ended)
    hung: dict[int, float] = {}
    for each in mine:
        if each.kind == "rank.hung":
            told = each.body.get("ranks") or [each.body]
            hung |= {int(r["rank"]): min(each.at - float(r["seconds"]), verdict) for r in told}
    stays = last and run.ended_at is not None  # else others may have gone on with it, or will
    over = within(ended[0].at) if ended and not stays else None
    if going_on and last and not alive:
        over = verdict
    return Period(
        **base,
        verdict=verdict,
        failed=failed,
        hung=hung,
        after="recovery" if going_on else "ending",
        over=over,
    )


def _seen(event: Event) -> float:
    """When a death or a hang was known: the agent saw it before the row was written."""
    return min(event.at, float(event.body.get("seen_at") or event.at))


def _is_failure(ended: Sequence[Event]) -> bool:
    return bool(ended) and ended[0].kind == "run.failed"


def _world(run: Run) -> int:
    return max(1, int(run.spec.get("world_size", 1)))
