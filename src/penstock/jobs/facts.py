"""What the controller knows about the current attempt, gathered from the agent's events."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from penstock.jobs.decide import Exit, Hung, Poll, Raised


def worth_telling(kind: str, body: Any, facts: Facts) -> tuple[str, dict[str, Any]] | None:
    """An agent's word about the current attempt as an event: (kind, body), None for most."""
    if not isinstance(body, dict) or body.get("gang") != facts.attempt:
        return None
    if kind == "started":
        return "gang.started", {key: body[key] for key in ("pids", "where") if key in body}
    if kind == "waits":
        return "places.waiting", {key: value for key, value in body.items() if key != "gang"}
    if kind == "aside":
        return "node.set-aside", {"host": body["host"], "why": body["why"]}
    if kind == "hung":
        return "rank.hung", {key: value for key, value in body.items() if key != "gang"}
    if kind == "exited" and not body["told"] and len(facts.exits) <= 1:  # others: because of it
        keys = ("rank", "pid", "signal", "code", "seen_at", "oom")
        return "rank.died", {key: body[key] for key in keys}
    return None


class Facts:
    """Forgets everything with the attempt: each has its own."""

    def __init__(self, attempt: int = 0, world_size: int = 0) -> None:
        self.attempt = attempt
        self.exits: list[Exit] = []
        self.raised: list[Raised] = []
        self.hung: Hung | None = None
        self.results: dict[int, dict[str, Any]] = {}
        self.left: set[int] = set()
        self.steps: list[int] = []
        self.started = False
        self.gone = False
        self.agent_lost = False
        self.node_lost: dict[str, Any] | None = None  # which, where the agents are elsewhere
        self.broken: dict[str, Any] | None = None
        self.away: dict[str, Any] | None = None
        self.short: str | None = None
        self.leaving: str | None = None
        self.world_size = world_size
        self._dead: set[int] = set()
        self._pace: deque[tuple[float, int]] = deque(maxlen=8)

    def hear(self, kind: str, body: Any) -> None:
        if kind == "lost":
            self.agent_lost = True
            self.node_lost = body if isinstance(body, dict) else None
        elif kind == "away":
            self.away = body["error"]
        elif kind == "broken" and "error" in body:
            self.broken = body["error"]
        elif kind == "broken":
            what = f"{body['what']}: {body['log'].strip().splitlines()[-1:] or ['?']}"
            fix = "See image.log of this run; a package in `preload` may not import."
            self.broken = {"code": "unavailable", "what": what, "fix": fix, "facts": body}
        elif isinstance(body, dict) and body.get("gang") == self.attempt:
            handler = getattr(self, f"_hear_{kind}", None)
            if handler is not None:
                handler(body)

    def _hear_started(self, body: dict[str, Any]) -> None:
        self.gone = False  # a map's only worker may have been replaced
        self.started = bool(body["pids"])

    def _hear_exited(self, body: dict[str, Any]) -> None:
        if not body["told"] and body["pid"] not in self._dead:
            self._dead.add(body["pid"])
            how = (body["signal"], body["code"], body["seen_at"], body.get("oom", False))
            self.exits.append(Exit(body["rank"], *how))

    def _hear_hung(self, body: dict[str, Any]) -> None:
        told = {key: value for key, value in body.items() if key != "gang"}
        self.hung = Hung(body["rank"], body["step"], body["where"] or body["state"], told)

    def _hear_short(self, body: dict[str, Any]) -> None:
        self.short = f"room for {body['room']} of {self.world_size} ranks"

    def _hear_leaving(self, body: dict[str, Any]) -> None:
        self.leaving = f"{body['node']} at {body['host']} is taken away"

    def _hear_gone(self, _: dict[str, Any]) -> None:
        self.gone = True

    def _hear_progress(self, body: dict[str, Any]) -> None:
        self.steps = body["steps"]
        self._pace.append((time.monotonic(), max(self.steps)))

    def _hear_tell(self, body: dict[str, Any]) -> None:
        rank, kind, payload = body["rank"], body["kind"], body["payload"]
        if kind == "finished":
            self.results[rank] = payload
            self.left.add(rank)
        elif kind == "drained":
            self.left.add(rank)
        elif kind == "raised":
            self.raised.append(Raised(rank, int(payload["step"]), payload["error"]))

    def pace(self) -> float:
        """Steps per second, lately."""
        if len(self._pace) < 2:
            return 0.0
        (t0, s0), (t1, s1) = self._pace[0], self._pace[-1]
        return max(0.0, (s1 - s0) / max(t1 - t0, 0.25))

    def poll(self, at: float, committed: int, kept: int, **wishes: Any) -> Poll:
        """wishes  those fields of Poll that tell what others want: stop, grace, kill, …"""
        everyone = self.world_size > 0
        return Poll(
            at=at,
            committed=committed,
            kept=kept,
            started=self.started,
            exits=tuple(self.exits),
            raised=tuple(self.raised),
            hung=self.hung,
            finished=everyone and len(self.results) == self.world_size,
            left=everyone and len(self.left) == self.world_size,
            gone=self.gone,
            agent_lost=self.agent_lost,
            broken=self.broken,
            away=self.away,
            short=self.short,
            **wishes,
        )
