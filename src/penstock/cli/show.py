"""How runs look. Other nouns are short enough to draw beside their commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from penstock.base.hashing import short
from penstock.base.units import show_bytes, show_seconds
from penstock.cli.data.drawing import pairs
from penstock.cli.draw import Drawing, age, state, took
from penstock.home.views import (
    CheckpointVerdict,
    CheckpointView,
    ClaimView,
    ExportView,
    ForkView,
    RunDetail,
    RunView,
)
from penstock.records import Checkpoint

_SHOWN_CHECKPOINTS = 10


def runs(draw: Drawing, views: Sequence[RunView]) -> None:
    """One line per run."""
    draw.table(
        ("name", "work", "state", "> step", "> workers", "started", "took", "id"),
        [
            (
                each.name,
                each.work,
                state(each.state),
                _steps(each),
                each.workers,
                age(each.created_at),
                took(each.created_at, each.ended_at) if each.ended_at else "",
                each.id,
            )
            for each in views
        ],
        empty="no runs",
    )


def queue(draw: Drawing, views: Sequence[ClaimView]) -> None:
    """Holders, then those who wait, in order of arrival."""
    draw.table(
        ("run", "state", "wants", "devices, or who is in the way", "since", "host", "id"),
        [
            (
                each.name,
                each.state,
                _pairs(each.wants),
                ", ".join(each.devices) or "; ".join(each.waits_for),
                age(each.since),
                each.host,
                each.run,
            )
            for each in views
        ],
        empty="no run holds a device, and none waits",
    )


def run(draw: Drawing, detail: RunDetail) -> None:
    """A run from its name down to its last metrics."""
    view = detail.run
    draw.line(Text(view.name, style="bold"), "  ", state(view.state), "  ", view.id)
    draw.facts(
        {
            "step": _steps(view),
            "workers": view.workers,
            "launcher": detail.spec.get("launcher"),
            "started": f"{age(view.created_at)}, took {took(view.created_at, view.ended_at)}",
            "detached": "yes" if view.detached else None,
            "forked from": _forked_from(detail.spec.get("forked_from")),
            "weights from": _weights_from(detail.spec),
            "saves": _saves(detail.spec),
            "entry": detail.spec.get("entry"),
            "config": _config(detail.spec.get("config")),
            "not preloaded": _not_preloaded(detail.spec),
            "data": ", ".join(f"{asked} = {got}" for asked, got in view.data.items()),
            "units": _pairs(detail.units),
            "result": pairs(view.result),
        }
    )
    if view.error:
        draw.line(Text("error ", style="bold red"), _error(view.error))
    draw.title("attempts")
    draw.table(
        ("> #", "> from", "> to", "> took", "ended by"),
        [
            (
                each.number,
                each.from_step,
                each.to_step,
                took(each.started_at, each.ended_at),
                each.cause or Text("goes on", style="cyan"),
            )
            for each in detail.attempts
        ],
        empty="none yet",
    )
    if detail.checkpoints:
        draw.title(f"checkpoints ({len(detail.checkpoints)})")
        draw.table(
            ("> step", "> size", "made", "digest", "kept for"),
            [
                (c.step, show_bytes(c.bytes), age(c.created_at), short(c.digest), _kept_for(c))
                for c in detail.checkpoints[:_SHOWN_CHECKPOINTS]
            ],
        )
    if detail.metrics:
        draw.title("last metrics")
        draw.table(
            ("name", "> value", "> at step"),
            [(name, value, step) for name, (step, value) in detail.metrics.items()],
        )


def forked(draw: Drawing, made: ForkView) -> None:
    """Where it begins, what differs, and how to follow it."""
    for note in made.notes:
        draw.line(note)
    draw.line(f"{made.run.name} ({made.run.id}) begins at {made.origin}")
    for line in made.changed:
        draw.line(f"  changed: {line}")
    draw.line(f"follow it: penstock runs logs {made.run.name} -f")


def exported(draw: Drawing, made: ExportView) -> None:
    """What was written where."""
    for note in made.notes:
        draw.line(note)
    size = show_bytes(made.bytes)
    draw.line(f"{made.path}: step {made.step} of {made.run} as {made.format}, {size}")


def metrics(draw: Drawing, series: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Every point, one line each."""
    draw.table(
        ("name", "> step", "> value"),
        [(name, step, value) for name, points in series.items() for step, value in points],
        empty="nothing was logged",
    )


def verdicts(draw: Drawing, found: Sequence[CheckpointVerdict]) -> None:
    """Whole or damaged, and where."""
    draw.table(
        ("> step", "verdict", "> size", "what"),
        [
            (
                each.step,
                state("whole" if each.whole else "damaged"),
                show_bytes(each.bytes),
                "; ".join(str(damage.get("what", damage)) for damage in each.damages),
            )
            for each in found
        ],
        empty="no checkpoints",
    )


def checkpoints(draw: Drawing, found: Sequence[CheckpointView]) -> None:
    """One line per checkpoint; whole or damaged where they were read."""
    read = any(each.whole is not None for each in found)
    draw.table(
        ("> step", "> size", "made", "kept for", "metrics", *(("verdict", "what") if read else ())),
        [
            (
                each.step,
                show_bytes(each.bytes),
                age(each.created_at),
                _kept_for(each),
                "  ".join(f"{name}={value:.4g}" for name, value in sorted(each.metrics.items())),
                *(_verdict(each) if read else ()),
            )
            for each in found
        ],
        empty="no checkpoints",
    )


def _verdict(each: CheckpointView) -> tuple[Text, str]:
    what = "; ".join(str(damage.get("what", damage)) for damage in each.damages)
    return state("whole" if each.whole else "damaged"), what


def _kept_for(each: Checkpoint | CheckpointView) -> str:
    """ "val/accuracy, pinned: for the paper"."""
    pinned = None if each.pinned is None else f"pinned: {each.pinned}".removesuffix(": ")
    return ", ".join(filter(None, (each.best, pinned)))


def _steps(view: RunView) -> str:
    return str(view.step) if view.steps is None else f"{view.step}/{view.steps}"


def _saves(spec: dict[str, Any]) -> str | None:
    """How often; with the reason, where the run chose it."""
    if (chosen := spec.get("interval")) is not None and spec.get("every") == "auto":
        cost, between = chosen["cost"], show_seconds(chosen["between"])
        return (
            f"every {chosen['seconds']:.0f} s: a save costs {cost:.2g} s, a failure every {between}"
        )
    every = spec.get("every")
    return f"every {every} steps" if isinstance(every, int) else every and f"every {every}"


def _not_preloaded(spec: dict[str, Any]) -> str | None:
    found: dict[str, str] = spec.get("not_preloaded") or {}
    return "; ".join(f"{module}: {why}" for module, why in found.items()) or None


def _forked_from(origin: Any) -> str | None:
    return f"{origin['name']}@{origin['step']} ({origin['run']})" if origin else None


def _weights_from(spec: dict[str, Any]) -> str | None:
    """What `init_from` resolved to; nothing where it was not applied: of a fork it is the other
    run's, and a run with checkpoints of its own was asked too late."""
    initial: dict[str, Any] = {} if spec.get("forked_from") else spec.get("init_from") or {}
    match initial.get("kind"):
        case "run":
            return f"{initial['name']}@{initial['step']} ({initial['run']})"
        case "model":
            return str(initial["reference"])
    return None


def _config(packed: Any) -> str:
    """The values of a packed config; its type only matters to those who unpack it."""
    return _pairs(packed["value"] if isinstance(packed, dict) and "value" in packed else packed)


def _pairs(values: Any) -> str:
    if not isinstance(values, dict):
        return str(values or "")
    return "  ".join(f"{key}={value}" for key, value in values.items())


def _error(error: dict[str, Any]) -> str:
    what, fix = str(error.get("what", error)), error.get("fix")
    return f"{what}\n  fix: {fix}" if fix else what
