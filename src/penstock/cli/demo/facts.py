"""What happened to a run, read back from its record: events, signals, attempts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from penstock.home.local import LocalHome
from penstock.records import Event


@dataclass(frozen=True)
class Story:
    """One sabotaged training.

    killed    the rank that was killed: rank, pid, step it had reached, signal
    seen      seconds from the kill to its being seen
    resumed   step gone on from
    recovery  seconds from the kill to the next completed step
    damaged   step and chunk of the checkpoint with the flipped bit, and what was fallen back to
    lost, repeated  samples, by the signals of the attempts that count
    """

    killed: dict[str, Any]
    seen: float
    resumed: int
    recovery: float
    damaged: dict[str, Any]
    steps: int
    lost: int
    repeated: int
    kills: int


def story_of(home: LocalHome, run_id: str, batch_size: int) -> Story | None:
    """None when the record does not hold both kills and what followed them."""
    events = home.events(subject=f"run/{run_id}", limit=100_000)
    kill = _first(events, "demo.killed")
    harm = _first(events, "demo.damaged")
    if kill is None or harm is None:
        return None
    died = _first(events, "rank.died", after=_attempt_seq(events, kill))
    resumed = _first(events, "attempt.resumed", after=kill.seq)
    stepping = _first(events, "attempt.stepping", after=resumed.seq if resumed else kill.seq)
    damaged = _first(events, "checkpoint.damaged", after=harm.seq - 1)
    if died is None or resumed is None or stepping is None or damaged is None:
        return None
    table = _scalars(home, run_id)
    reached = _reached(table, kill.body["rank"], died.body["attempt"], events)
    lost, repeated = _account(table, home.run(run_id).run.step, batch_size)
    return Story(
        killed={**kill.body, "signal": died.body["signal"], "step": reached},
        seen=died.body["seen_at"] - kill.body["at"],
        resumed=resumed.body["step"],
        recovery=stepping.body["at"] - kill.body["at"],
        damaged=damaged.body,
        steps=home.run(run_id).run.step,
        lost=lost,
        repeated=repeated,
        kills=1 + len(harm.body["pids"]),
    )


def _first(events: list[Event], kind: str, after: int = -1) -> Event | None:
    return next((e for e in events if e.kind == kind and e.seq > after), None)


def _attempt_seq(events: list[Event], kill: Event) -> int:
    """The start of the attempt that the kill ended: the death may be recorded before the kill."""
    starts = [e.seq for e in events if e.kind == "gang.started" and e.seq < kill.seq]
    died = [e.seq for e in events if e.kind == "rank.died"]
    return max((seq for seq in starts if any(seq < d for d in died)), default=-1)


def _scalars(home: LocalHome, run_id: str) -> list[dict[str, Any]]:
    from penstock import signals

    table = signals.read_scalars(home.layout.signals(run_id))
    rows: list[dict[str, Any]] = table.to_pylist()
    return [row for row in rows if row["name"] == "penstock/step_seconds"]


def _reached(rows: list[dict[str, Any]], rank: int, attempt: int, events: list[Event]) -> int:
    """The last step that the killed rank completed."""
    start = next(e for e in events if e.kind == "attempt.started" and e.body["attempt"] == attempt)
    generation = start.body["generation"]
    steps = [r["step"] for r in rows if r["rank"] == rank and r["generation"] == generation]
    return max(steps, default=0)


def _account(rows: list[dict[str, Any]], steps: int, batch_size: int) -> tuple[int, int]:
    """Samples lost and repeated in the steps that count: of each, the newest generation's."""
    newest: dict[tuple[int, int], int] = {}
    for row in rows:
        place = row["rank"], row["step"]
        newest[place] = max(newest.get(place, -1), row["generation"])
    counted = Counter(
        (row["rank"], row["step"])
        for row in rows
        if row["generation"] == newest[row["rank"], row["step"]]
    )
    ranks = sorted({rank for rank, _ in counted})
    part = batch_size // max(1, len(ranks))
    wanted = [(rank, step) for rank in ranks for step in range(1, steps + 1)]
    lost = sum(part for place in wanted if place not in counted)
    repeated = sum(part * (count - 1) for count in counted.values())
    return lost, repeated
