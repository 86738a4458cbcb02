"""Which columns name episodes and times, where windows or a stream do not say it.

The column whose type is Episode(), and that whose type is Timestamp(); of several the one that is
called "episode" or "time"; without any the one that is called so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput
from penstock.data.columns import Column
from penstock.data.samples import reading
from penstock.data.samples.essence import essence
from penstock.data.samples.windows import Stream, Windows

if TYPE_CHECKING:
    from penstock.data.source import Source

EPISODE, TIME = "episode", "time"


def named(spec: Windows, source: Source) -> Windows:
    """The windows with `episode` a name and `time` a name, or "" where nothing tells times and
    none are needed. Raises BadInput: several columns may be meant."""
    columns = reading.columns_of(source)
    episode, time, unit = spec.episode, spec.time, spec.time_unit
    if episode is None:
        found = _meant(columns, "episode", EPISODE)
        episode = found.name if found else EPISODE
    if time is None:
        found = _meant(columns, "timestamp", TIME)
        needed = spec.unit == "seconds" or bool(spec.streams)
        time = found.name if found else TIME if needed else ""
        unit = _unit(found, unit)
    return replace(spec, episode=episode, time=time, time_unit=unit)


def named_stream(spec: Stream, windows: Windows, source: Source) -> Stream:
    """The stream with names: its own, those of the (named) windows, or what its columns mean."""
    columns = {each.name: each for each in reading.columns_of(source)}
    episode, time, unit = spec.episode, spec.time, spec.time_unit
    if episode is None:
        episode = windows.episode
        if episode not in columns and (found := _meant([*columns.values()], "episode", EPISODE)):
            episode = found.name
    if time is None:
        time = windows.time
        if time not in columns and (found := _meant([*columns.values()], "timestamp", TIME)):
            time = found.name
            unit = unit or _unit(found, windows.time_unit)
    return replace(spec, episode=episode, time=time, time_unit=unit or windows.time_unit)


def said(spec: Windows, names: Windows) -> dict[str, Any]:
    """What of windows keys the order: names count as if they had been given, and those that are
    usual not at all. `names` is what `named` made of `spec`."""
    found = essence(spec) | {
        "episode": names.episode,
        "time": names.time or None,
        "time_unit": names.time_unit,
    }
    usual = {"episode": EPISODE, "time": TIME, "time_unit": "s"}
    return {key: value for key, value in found.items() if key not in usual or value != usual[key]}


def _meant(columns: Sequence[Column], meaning: str, usual: str) -> Column | None:
    found = [each for each in columns if each.meaning == meaning]
    called = next((each for each in columns if each.name == usual), None)
    if not found or called in found:
        return called
    if len(found) == 1:
        return found[0]
    names = ", ".join(each.name for each in found)
    kind = "episode" if meaning == "episode" else "time"
    raise BadInput(
        f"several columns may be the {kind} of the windows: {names}",
        f'Name one: Windows({kind}="{found[0].name}").',
        columns=[each.name for each in found],
    )


def _unit(column: Column | None, otherwise: Any) -> Any:
    """Of a number whose type tells it, where the windows do not."""
    told = column.options.get("unit") if column and column.meaning == "timestamp" else None
    return told if told and otherwise == "s" else otherwise
