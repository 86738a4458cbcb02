"""How another process opens the same source. Small frozen objects, so that they can travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penstock.base.layout import Layout
from penstock.blobs import open_blobs
from penstock.data.manifest import read_manifest
from penstock.data.pipeline.joined import JoinedSource
from penstock.data.samples import over
from penstock.data.source import ShardSource


class Opening(Protocol):
    def open(self) -> Any:
        """The source. Whoever opens it closes it."""
        ...


@dataclass(frozen=True, slots=True)
class Shards:
    """The rows of a split. blobs  URL of the store; home  the layout's root"""

    blobs: str
    home: str
    digest: str
    split: str
    columns: Sequence[str] | None = None
    name: str = ""

    def open(self) -> ShardSource:
        blobs = open_blobs(self.blobs)
        manifest = read_manifest(blobs, self.digest, self.name)
        layout = Layout(Path(self.home))
        return ShardSource(
            blobs, layout, manifest, self.split, columns=self.columns, name=self.name
        )


@dataclass(frozen=True, slots=True)
class Sampled:
    """Samples that are not rows: windows, packs, buckets."""

    spec: Any
    rows: Opening
    streams: Mapping[str, Opening] = field(default_factory=dict)
    folder: Path | None = None

    def open(self) -> Any:
        streams = {name: each.open() for name, each in self.streams.items()}
        return over(self.spec, self.rows.open(), streams=streams or None, folder=self.folder)


@dataclass(frozen=True, slots=True)
class Joined:
    """The sources of a mixture."""

    parts: Mapping[str, Opening]

    def open(self) -> JoinedSource:
        return JoinedSource({name: each.open() for name, each in self.parts.items()})


@dataclass(frozen=True, slots=True)
class Itself:
    """A source that travels as it is, such as one over a torch Dataset."""

    source: Any

    def open(self) -> Any:
        return self.source
