"""A run, its attempts and its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

RunState = Literal["pending", "running", "stopping", "stopped", "failed", "finished"]
"""What the row says. `interrupted` is never stored: it is "running" without a live holder."""

ENDED: frozenset[str] = frozenset({"stopped", "failed", "finished"})


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a training function (or of a map) under a name.

    work     "train" | "evaluate" | "prepare": which work the controller carries out
    spec     everything needed to start it again: entry, config, world size, environment, seeds
    code     digest of the function's code identity
    source   digest of the source snapshot's manifest
    data     reference as asked -> reference as resolved, recorded when first resolved
    step     last step that was reported, for people; checkpoints are the truth
    result   what the run gave: model reference, digests, summary
    """

    id: str
    name: str
    work: str
    state: RunState
    spec: dict[str, Any]
    code: str = ""
    source: str = ""
    data: dict[str, str] = field(default_factory=dict)
    detached: bool = False
    step: int = 0
    created_at: float = 0.0
    ended_at: float | None = None
    error: dict[str, Any] | None = None
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of the gang. `cause` says why it ended; None while it goes on."""

    run_id: str
    number: int
    generation: int
    started_at: float
    from_step: int
    ended_at: float | None = None
    to_step: int | None = None
    cause: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed step.

    digest  names the manifest blob
    best    the metrics it is kept for, "a,b"
    pinned  the note of its pin, "" where it has none; None: it is not pinned
    """

    run_id: str
    step: int
    digest: str
    generation: int
    created_at: float
    bytes: int
    metrics: dict[str, float] = field(default_factory=dict)
    best: str | None = None
    pinned: str | None = None
