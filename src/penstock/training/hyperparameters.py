"""Hyperparameters that were changed between two attempts, or between a run and its fork.

An optimiser's state dictionary holds its learning rate, so restoring it would put back the old one
whatever the config says now. A checkpoint therefore keeps also what each optimiser was constructed
with: what is constructed differently now was changed by somebody, and holds; all else is as saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Groups = list[dict[str, Any]]  # of one optimiser: name -> value, the parameters left out


def constructed(objects: Mapping[str, Any]) -> dict[str, Groups]:
    """name -> hyperparameters of every optimiser among tracked objects, before it is restored."""
    return {
        name: [_plain(group) for group in each.param_groups]
        for name, each in objects.items()
        if hasattr(each, "param_groups")
    }


def put_changes(
    objects: Mapping[str, Any], then: Mapping[str, Groups], now: Mapping[str, Groups]
) -> list[str]:
    """Put into restored optimisers, and their schedulers, what was constructed differently.

    then, now  what `constructed` gave for the checkpoint's attempt and for this one
    returns    what was changed, a line each: "optimizer.lr: 0.01 -> 0.001"
    """
    changed: list[str] = []
    for name, groups in now.items():
        old = then.get(name, [])
        optimizer = objects[name]
        if len(old) != len(groups):
            continue  # nothing is known of them: of an earlier version, or tracked under a new name
        for at, (before, after) in enumerate(zip(old, groups, strict=True)):
            differing = [key for key in after if key in before and before[key] != after[key]]
            _put(optimizer.param_groups[at], before, after, differing)
            where = name if len(groups) == 1 else f"{name}[{at}]"
            changed += [f"{where}.{key}: {before[key]} -> {after[key]}" for key in differing]
            if differing:
                _put_bases(objects, optimizer)
    return changed


def _put(
    group: dict[str, Any], before: dict[str, Any], after: dict[str, Any], differing: list[str]
) -> None:
    base = "initial_lr" if "initial_lr" in before and "initial_lr" in after else "lr"
    if base in differing:  # first, for it compares with what is still there
        group["lr"] = _rate(group["lr"], before[base], after[base])
    for key in differing:
        if key != "lr":
            group[key] = after[key]


def _rate(now: Any, before: Any, after: Any) -> Any:
    """Where a schedule, or the loop itself, has moved the rate, it goes on in proportion."""
    return after if now == before or not before else now * after / before


def _put_bases(objects: Mapping[str, Any], optimizer: Any) -> None:
    """What a scheduler of this optimiser multiplies."""
    groups = optimizer.param_groups
    for each in objects.values():
        ours = getattr(each, "optimizer", None) is optimizer and hasattr(each, "base_lrs")
        if ours and all("initial_lr" in group for group in groups):
            each.base_lrs = [group["initial_lr"] for group in groups]


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    kinds = bool | int | float | str | None
    return {
        key: value
        for key, value in group.items()
        if isinstance(value, kinds)
        or (isinstance(value, tuple) and all(isinstance(each, kinds) for each in value))
    }
