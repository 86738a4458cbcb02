"""Samples by their spec: to JSON and back, which datasets they need, and the source they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data.samples.buckets import Buckets, BucketSource
from penstock.data.samples.packing import Pack, PackSource
from penstock.data.samples.windowing import WindowSource
from penstock.data.samples.windows import Stream, Windows

if TYPE_CHECKING:
    from penstock.data.source import Source

Samples = Windows | Pack | Buckets

_KINDS: dict[str, type[Windows] | type[Pack] | type[Buckets]] = {
    "windows": Windows,
    "pack": Pack,
    "buckets": Buckets,
}


def over(
    spec: Samples,
    source: Source,
    *,
    streams: Mapping[str, Source] | None = None,
    folder: Path | None = None,
) -> Source:
    """The source whose samples the spec describes, over a source of rows.

    source   all columns that the spec names
    streams  a source for each of `references(spec)`
    folder   where what is computed once is kept (`Layout.samples`); None: nowhere

    The result owns the sources: its `close` closes them. Raises BadInput and NotFound before any
    batch: a column, timestamps out of order, nothing left.
    """
    if isinstance(spec, Windows):
        return WindowSource(spec, source, streams=streams, folder=folder)
    if streams:
        raise BadInput(f"{type(spec).__name__} takes no streams", "Leave them out.")
    if isinstance(spec, Pack):
        return PackSource(spec, source, folder=folder)
    if isinstance(spec, Buckets):
        return BucketSource(spec, source, folder=folder)
    raise BadInput(
        f"samples is {type(spec).__name__}, which describes no samples",
        "Give Windows(…), Pack(…) or Buckets(…).",
    )


def references(spec: Samples, split: str | None = None) -> dict[str, str]:
    """Name -> reference of every further dataset that a spec needs.

    split  of the windows: a stream whose reference names none takes the same
    """
    if not isinstance(spec, Windows):
        return {}
    found = {name: each.source for name, each in spec.streams.items() if isinstance(each, Stream)}
    return {
        name: source if split is None or ":" in source else f"{source}:{split}"
        for name, source in found.items()
    }


def spec_to_json(spec: Samples) -> dict[str, Any]:
    """The spec as JSON-able data; `spec_from_json` gives an equal one."""
    kind = next(name for name, each in _KINDS.items() if isinstance(spec, each))
    values = {each.name: _plain(getattr(spec, each.name)) for each in dataclasses.fields(spec)}
    return {"samples": kind, **values}


def _plain(value: Any) -> Any:
    if isinstance(value, Stream):
        fields = dataclasses.fields(value)
        return {each.name: _plain(getattr(value, each.name)) for each in fields}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple | list) else value


def spec_from_json(data: Mapping[str, Any]) -> Samples:
    """A spec from `spec_to_json`. Raises BadInput for what is none."""
    values = dict(data)
    kind = values.pop("samples", None)
    if kind not in _KINDS:
        raise BadInput(f"{kind!r} is no kind of samples", did_you_mean(str(kind), _KINDS))
    if "streams" in values:
        values["streams"] = {
            name: each if isinstance(each, str) else _made(Stream, each)
            for name, each in values["streams"].items()
        }
    found: Samples = _made(_KINDS[kind], values)
    return found


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    known = {each.name for each in dataclasses.fields(kind)}
    for name in values:
        if name not in known:
            raise BadInput(f'{kind.__name__} has no field "{name}"', did_you_mean(name, known))
    return kind(**values)
