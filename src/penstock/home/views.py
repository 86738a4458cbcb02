"""What doors show: frozen and JSON-able, so that a terminal, a page and a far home see the same.

Times are seconds since 1970; sizes are bytes. `records.to_data` turns any of them into plain JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from penstock.records import Alias, Attempt, Checkpoint, Event, Version


@dataclass(frozen=True, slots=True)
class RunView:
    """One line about a run.

    state     pending, running, stopping, stopped, failed, finished, or interrupted: its row says
              that it runs but nobody holds its lease
    step      last step that was reported; for people, checkpoints are the truth
    steps     how many there will be, None when that is not known
    workers   ranks, 0 when it runs inside the script
    """

    id: str
    name: str
    work: str
    state: str
    step: int
    steps: int | None
    workers: int
    detached: bool
    created_at: float
    ended_at: float | None
    data: dict[str, str] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run with its history.

    spec      what it was started with (entry, config, seeds, world size)
    metrics   scalar name -> the last (step, value) that was logged
    units     unit state -> how many, for maps
    """

    run: RunView
    spec: dict[str, Any]
    attempts: list[Attempt]
    checkpoints: list[Checkpoint]
    metrics: dict[str, tuple[int, float]]
    units: dict[str, int]


@dataclass(frozen=True, slots=True)
class ForkView:
    """A run that begins where another one was.

    parent, step  id of the other one, and where in it
    origin        the same for people: "base@2000"
    changed       what its config has else, a line each
    notes         damaged checkpoints that were passed over
    """

    run: RunView
    parent: str
    step: int
    origin: str
    changed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TrialView:
    """One trial of a study; it is a run.

    state   waiting, running, complete, pruned or failed
    value   of the study's metric, so far
    model   reference of what it published
    reason  why it failed or was pruned
    """

    number: int
    name: str
    run: str
    state: str
    params: dict[str, Any]
    value: float | None
    step: int
    model: str | None
    reason: str | None
    created_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class StudyView:
    """A search over a config's values.

    run     its row: step and steps are trials, begun and in all
    search  space, sampler, pruner and the rest of what was asked for
    best    name of the best complete trial; None without one
    """

    run: RunView
    metric: str | None
    direction: str
    search: dict[str, Any]
    best: str | None
    trials: list[TrialView]


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A run that holds devices, or waits for some.

    state      "holds" or "waits"
    wants      kind -> how many: {"gpu": 2}
    devices    that it holds: "gpu/GPU-5f2c…", "core/3"
    waits_for  a line for each run in its way
    since      when it began to wait, or to hold
    """

    run: str
    name: str
    host: str
    state: str
    wants: dict[str, int]
    devices: list[str]
    waits_for: list[str]
    since: float


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a run.

    role  controller, agent, image, rank, data (makes batches for a rank) or sidecar
    rank  its number; None for all others
    """

    run: str
    role: str
    pid: int
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class CheckpointVerdict:
    """Whether a checkpoint's bytes are what their hashes say; `damages` names what is not."""

    step: int
    whole: bool
    bytes: int
    damages: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """One line about a checkpoint.

    best     the metrics it is kept for, "a,b"
    pinned   the note of its pin, "" where it has none; None: it is not pinned
    whole    whether its bytes are what their hashes say; None: they were not read
    damages  what is not
    """

    run: str
    step: int
    bytes: int
    created_at: float
    metrics: dict[str, float] = field(default_factory=dict)
    best: str | None = None
    pinned: str | None = None
    whole: bool | None = None
    damages: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ExportView:
    """A checkpoint as a file, or folder, that others read.

    notes  damaged checkpoints that were passed over
    """

    run: str
    step: int
    path: str
    format: str
    bytes: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class VersionDetail:
    """A dataset or model version with the aliases that point at it, its tags and manifest."""

    version: Version
    aliases: list[Alias]
    manifest: dict[str, Any]
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class VersionView:
    """One line about a version; `aliases` are the names that point at it now."""

    version: Version
    aliases: list[str]
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the doctor looked at, what it found, and what to do when it is not well.

    node  of a cluster, where it was found; "": this machine
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    node: str = ""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node of a cluster.

    name         its address; with the beginning of its id where nodes share one
    state        "alive", "leaving" (it is about to be taken away) or "dead"
    total, free  CPUs, GPUs, and memory in bytes, as the cluster counts them
    leaving      seconds until it is taken away; None: it is not to be
    """

    name: str
    address: str
    host: str
    state: str
    total: dict[str, float] = field(default_factory=dict)
    free: dict[str, float] = field(default_factory=dict)
    leaving: float | None = None


@dataclass(frozen=True, slots=True)
class HoldView:
    """An agent of a run on a node, and what it holds there.

    run, name   of the run; name is "" where no row of this home tells of it
    agent       its name
    node        name of its node, or its address where the cluster cannot be asked
    state       as the cluster says: "created", "pending", "rescheduling"; "as rows say" where it
                cannot be asked
    ranks       that it has in the newest gang
    """

    run: str
    name: str
    agent: str
    node: str
    state: str
    ranks: list[int]
    attempt: int | None
    generation: int | None
    resources: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WaitView:
    """A run that waits for room: what for, what there was, since when."""

    run: str
    name: str
    wanted: str
    there: str
    since: float


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster at this moment, as far as it can be known.

    engine  the setting
    note    what else there is to say of it: that it has no nodes of its own, say
    error   why the cluster cannot be asked: all else is from rows then; None: it was asked
    runs    trainings that go on: their ranks are `holds`
    faults  events of the newest trainings: lost nodes, dead ranks, waiting; newest first
    """

    engine: str
    at: float
    note: str = ""
    error: dict[str, Any] | None = None
    nodes: list[NodeView] = field(default_factory=list)
    runs: list[RunView] = field(default_factory=list)
    holds: list[HoldView] = field(default_factory=list)
    waits: list[WaitView] = field(default_factory=list)
    faults: list[Event] = field(default_factory=list)
