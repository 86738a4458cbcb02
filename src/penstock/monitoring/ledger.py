"""The ledger of a run: every second of every rank has one class, and they add up to wall time.

Pure: no clock, no file. Each moment of a rank is painted once, by the first of these that holds:

    hang         from its last sign of life to the verdict
    recovery     after the verdict on an attempt that is followed by another, to that one's first
                 step
    recomputed   a step that the rank had completed in an earlier attempt; and the step at hand
                 when an attempt failed, which is lost
    evaluation, checkpoint, publishing, comparing
                 as the rank told
    data         its wait for a step's batch
    productive   the rest of a step
    start-up     before the first step; recovery where the attempt before failed
    ending       after the last step of an attempt that ended by itself, up to the run's end
    idle         nobody carried the run out: it had ended and was resumed later, or all its
                 processes had died; then from the last thing that any rank told

What a rank did not tell is classed by a rule, never left out: steps between two that were told
(signals were dropped) are productive; the step at hand is productive while the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.monitoring.periods import Period, periods
from penstock.monitoring.told import Told
from penstock.records import Attempt, Event, Run

CLASSES = (
    "start-up",
    "productive",
    "data",
    "checkpoint",
    "evaluation",
    "publishing",
    "comparing",
    "recomputed",
    "recovery",
    "hang",
    "ending",
    "idle",
)
_NUMBER = {name: number for number, name in enumerate(CLASSES)}
_Key = tuple[int, int]  # generation, rank


@dataclass(frozen=True, slots=True)
class RankLedger:
    """seconds      class -> seconds; they add up to `wall`
    steps, recomputed_steps
                 that were carried out, and how many of those for the second time or more
    """

    rank: int
    wall: float
    seconds: dict[str, float]
    steps: int
    recomputed_steps: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """wall     seconds from the run's creation to its end, or to now
    seconds  class -> rank-seconds; they add up to `rank_seconds`
    goodput  productive / (rank_seconds without start-up), 0..1; None before the first step
    """

    wall: float
    rank_seconds: float
    seconds: dict[str, float]
    goodput: float | None
    steps: int
    recomputed_steps: int
    ranks: list[RankLedger]


def ledger(
    run: Run,
    attempts: Sequence[Attempt],
    events: Sequence[Event],
    told: Mapping[_Key, Told],
    now: float,
    alive: bool,
) -> Ledger:
    """Where the seconds of a run went.

    attempts, events  of this run, in order; of events those with an "attempt" in their body and
                      those of the run's ends are looked at
    told              (generation, rank) -> what the rank told in that attempt
    alive             see `periods`
    """
    found = periods(run, attempts, events, now, alive)
    ranks = []
    for rank in range(max(period.ranks for period in found)):
        totals, steps, again, highest = np.zeros(len(CLASSES)), 0, 0, 0
        mine = [period for period in found if rank < period.ranks]
        for number, period in enumerate(mine):
            own = told.get((period.generation, rank))
            following = mine[number + 1] if number + 1 < len(mine) else None
            then = told.get((following.generation, rank)) if following else None
            page = _Page(period, rank, own, told, highest, then)
            totals += page.totals
            steps += page.steps
            again += page.again
            highest = max(highest, page.reached)
        seconds = {name: float(totals[i]) for i, name in enumerate(CLASSES)}
        wall = sum(period.end - period.start for period in mine)
        ranks.append(RankLedger(rank, wall, seconds, steps, again))
    return _total(found, ranks)


def _total(found: Sequence[Period], ranks: list[RankLedger]) -> Ledger:
    seconds = {name: sum(each.seconds[name] for each in ranks) for name in CLASSES}
    rank_seconds = sum(each.wall for each in ranks)
    after = rank_seconds - seconds["start-up"]
    steps = max(each.steps for each in ranks)
    return Ledger(
        wall=found[-1].end - found[0].start,
        rank_seconds=rank_seconds,
        seconds=seconds,
        goodput=seconds["productive"] / after if steps and after > 0 else None,
        steps=steps,
        recomputed_steps=max(each.recomputed_steps for each in ranks),
        ranks=ranks,
    )


class _Page:
    """One rank in one period. `totals` are seconds by class; `reached` its highest step."""

    def __init__(
        self,
        period: Period,
        rank: int,
        own: Told | None,
        told: Mapping[_Key, Told],
        highest: int,
        then: Told | None,
    ) -> None:
        self.totals = np.zeros(len(CLASSES))
        self.steps = self.again = self.reached = 0
        until = period.end if period.verdict is None else period.verdict
        if period.silent:
            signs = [t.last for (g, _), t in told.items() if g == period.generation]
            until = min(max([period.start, *signs]), until)
        alive_until = max(min(until, period.hung.get(rank, until)), period.start)
        self._add("hang", until - alive_until)
        over = period.end if period.over is None else max(period.over, until)
        self._add(period.after, over - until)
        self._add("idle", period.end - over)
        if own is None:
            self._add(period.preface, alive_until - period.start)
            return
        tail = _tail(period, own, then)
        self._paint(own, period.start, alive_until, highest, period.preface, tail)

    def _add(self, name: str, seconds: float) -> None:
        self.totals[_NUMBER[name]] += seconds

    def _paint(
        self, own: Told, start: float, end: float, highest: int, preface: str, tail: str
    ) -> None:
        """Everything from start to end, by cutting it where anything begins or ends."""
        steps, ends, took, waited = own.columns()
        self.steps = len(steps)
        repeated = steps <= highest
        self.again = int(repeated.sum())
        self.reached = int(steps.max(initial=0))
        ends = np.clip(np.maximum.accumulate(ends), start, end)
        befores = np.concatenate([[start], ends[:-1]])
        begins = np.minimum(np.maximum(ends - took, befores), ends)
        got = np.minimum(begins + np.maximum(waited, 0.0), ends)
        spans = _apart(own, start, end)
        at = np.array([each[1:] for each in spans]).reshape(-1, 2)
        cuts = np.unique(np.concatenate([[start, end], begins, ends, got, at.ravel()]))
        if len(cuts) < 2:
            return
        middles = (cuts[:-1] + cuts[1:]) / 2
        kinds = np.full(len(middles), _NUMBER["productive"])
        if len(steps):
            kinds[middles < begins[0]] = _NUMBER[preface]
            kinds[middles > ends[-1]] = _NUMBER[tail]
            place = np.searchsorted(begins, middles, side="right") - 1
            inside = (place >= 0) & (middles < ends[place])
            kinds[inside & (middles < got[place])] = _NUMBER["data"]
        else:
            loop = end if own.loop is None else own.loop
            kinds[middles < loop] = _NUMBER[preface]
            kinds[middles > loop] = _NUMBER[tail]
        if len(spans):
            numbers = np.array([_NUMBER[each[0]] for each in spans])
            which = np.searchsorted(at[:, 0], middles, side="right") - 1
            within = (which >= 0) & (middles < at[which, 1])
            kinds[within] = numbers[which[within]]
        if len(steps):
            kinds[inside & repeated[place]] = _NUMBER["recomputed"]
        self.totals += np.bincount(kinds, weights=np.diff(cuts), minlength=len(CLASSES))


def _tail(period: Period, own: Told, then: Told | None) -> str:
    """What the time after a rank's last told step was."""
    if period.failed:
        done = len(own.steps) and then is not None and len(then.steps)
        if done and then is not None and then.steps[0] > own.steps[-1] + 1:
            return "productive"  # its last step was saved, and the rank died before it could tell
        return "recomputed"
    if period.verdict is None and (own.looping or not len(own.steps)):
        return "productive"
    return "ending"


def _apart(own: Told, start: float, end: float) -> list[tuple[str, float, float]]:
    """The spans within [start, end], in order, none of them reaching into the next; the one that
    began and was never ended goes on to the end."""
    spans = list(own.spans)
    if own.inside in _NUMBER:
        spans.append((own.inside, own.since, end))
    found = []
    cursor = start
    for kind, begin, finish in sorted(spans, key=lambda each: each[1]):
        begin, finish = max(begin, cursor), min(finish, end)
        if finish > begin:
            found.append((kind, begin, finish))
            cursor = finish
    return found
