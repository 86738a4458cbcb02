"""A study's trials in one line each, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.training.tuning.history import Trial


def params(values: Mapping[str, Any]) -> str:
    """
    >>> params({"lr": 0.00012345678, "width": 64})
    'lr=0.000123457 width=64'
    """
    return " ".join(f"{path}={_short(value)}" for path, value in values.items())


def ended(trial: Trial, metric: str | None, best: Trial | None) -> str:
    """What became of a trial."""
    head = f"trial {trial.number}"
    if trial.state == "complete" and (metric is None or trial.value is None):
        return f"{head}: finished"
    if trial.state == "complete":
        if best is not None and best.number == trial.number:
            more = ", the best so far"
        else:
            more = "" if best is None else f", the best is trial {best.number}"
        return f"{head}: {metric} {trial.value:.6g}{more}"
    if trial.state == "pruned":
        return f"{head}: pruned, {trial.reason or 'others were better'}"
    return f"{head}: failed: {trial.reason}"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
