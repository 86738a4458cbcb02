"""What `run.data` reads: a dataset's split, a mixture, torch's datasets, or any source."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.base import log
from penstock.base.errors import BadInput
from penstock.base.layout import Layout
from penstock.blobs import Blobs
from penstock.jobs.link import Link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.data.expectations import Expectations
    from penstock.data.manifest import Manifest
    from penstock.data.order import Rows
    from penstock.data.pipeline.options import Options

_log = log.logger("training")


class Reading:
    """Makes loaders for one rank. References are resolved by the controller, once per run."""

    def __init__(
        self,
        link: Link,
        blobs: Blobs,
        layout: Layout,
        seed: int,
        device: Any,
        folders: Sequence[str] = (),
    ) -> None:
        self._link, self._blobs, self._layout = link, blobs, layout
        self._seed, self._device = seed, device
        self._folders = folders
        self._expectations: Expectations | None = None
        self._told: set[tuple[str, str]] = set()  # version and expectations whose breaches are said

    def expecting(self, given: Any) -> Reading:
        """The same, but every version is held against expectations (or their file) first: those
        that refuse end the run, rows that quarantine names are left out.

        A file is looked for in the run's source snapshot, then where the script runs.
        """
        if given is None:
            return self
        from penstock.data.expectations import load

        if isinstance(given, str | Path):
            places = [Path(folder, given) for folder in self._folders]
            given = next((place for place in places if place.is_file()), given)
        made = copy(self)
        made._expectations = load(given)
        return made

    def loader(
        self,
        source: Any,
        batch_size: int,
        samples: Any,
        columns: Sequence[str] | None,
        options: Options,
    ) -> Any:
        """See `Run.data`."""
        from penstock.data.loader import Loader
        from penstock.data.mixing import Mix

        if options.get("seed") is None:
            options["seed"] = self._seed
        here: Options = {
            "rank": self._link.rank,
            "world_size": self._link.world_size,
            "device": self._device if self._device.type == "cuda" else None,
            "fork": self._link.fork,
            "index": self._layout.samples,
        }
        options = {**here, **options}
        if isinstance(source, Mix):
            return self._mixed(source, batch_size, samples, columns, options)
        if isinstance(source, str):
            found = self._opening(source, samples, columns)
            opened = found.opening.open()
            aside: Options = (
                {} if found.aside is None else {"aside": {opened.identity: found.aside}}
            )
            options = {"size": found.size, "key": found.key, **aside, **options}
            loader = Loader.over(opened, batch_size=batch_size, opening=found.opening, **options)
            self._tell(source, loader.order)
            return loader
        if samples is not None or columns is not None:
            raise BadInput(
                "samples= and columns= are of a dataset's split",
                "Give its reference, or make the source yourself.",
            )
        if self._expectations is not None:
            raise BadInput(
                "expect= is of dataset versions", "Prepare the data, or leave expect= out."
            )
        return self._of_object(source, batch_size, options)

    def _of_object(self, source: Any, batch_size: int, options: Options) -> Any:
        from penstock.data.loader import Loader
        from penstock.data.torchdata import StreamLoader, TorchSource

        if hasattr(source, "gather") and hasattr(source, "identity"):
            return Loader.over(source, batch_size=batch_size, **options)
        if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
            return Loader.over(TorchSource(source), batch_size=batch_size, **options)
        if hasattr(source, "__iter__"):
            _refuse_of_stream(options)
            drop_last = options.get("drop_last")
            return StreamLoader(
                source,
                batch_size=batch_size,
                rank=options["rank"],
                world_size=options["world_size"],
                drop_last=True if drop_last is None else drop_last,
                device=options["device"],
            )
        raise BadInput(
            f"run.data got a {type(source).__name__}",
            "Give a reference such as digits:train, a penstock.data.Mix, or a torch Dataset.",
        )

    def _mixed(
        self,
        mix: Any,
        batch_size: int,
        samples: Any,
        columns: Sequence[str] | None,
        options: Options,
    ) -> Any:
        from penstock.data.loader import Loader

        found = {name: self._opening(name, samples, columns) for name in mix.names}
        sources = {name: each.opening.open() for name, each in found.items()}
        aside = {
            sources[name].identity: each.aside
            for name, each in found.items()
            if each.aside is not None
        }
        options = {"aside": aside, **options} if aside else options
        if len(keys := {each.key for each in found.values()}) == 1:
            options = {"key": keys.pop(), **options}
        loader = Loader.mixed(
            sources,
            mix,
            batch_size=batch_size,
            openings={name: each.opening for name, each in found.items()},
            sizes={name: each.size for name, each in found.items()},
            **options,
        )
        for name, order in loader.orders.items():
            self._tell(name, order, batch=batch_size, drop_last=None, mixed=list(mix.names))
        return loader

    def _opening(self, reference: str, samples: Any, columns: Sequence[str] | None) -> _Found:
        from penstock.data.pipeline.opening import Sampled

        rows = self._shards(reference, None if samples is not None else columns)
        if samples is None:
            return rows
        if columns is not None:
            raise BadInput(
                "columns= says nothing beside samples=", "Name the columns in the samples' spec."
            )
        from penstock.data.samples import references

        others = references(samples, rows.opening.split)
        streams = {name: self._shards(each, None) for name, each in others.items()}
        for each in (rows, *streams.values()):
            _refuse_holes(each)
        openings = {name: each.opening for name, each in streams.items()}
        sampled = Sampled(samples, rows.opening, openings, self._layout.samples)
        return _Found(sampled, rows.size, rows.key)

    def _shards(self, reference: str, columns: Sequence[str] | None) -> _Found:
        from penstock.data.manifest import read_manifest
        from penstock.data.pipeline.opening import Shards

        found = self._link.call("data", {"reference": reference})
        manifest = read_manifest(self._blobs, found["digest"])
        aside = self._check(manifest, found["reference"]).get(found["split"])
        names = None if columns is None else tuple(columns)
        opening = Shards(
            self._blobs.url,
            str(self._layout.root),
            manifest.digest,
            found["split"],
            names,
            found["reference"],
        )
        return _Found(opening, manifest.split(found["split"]).bytes, manifest.key, aside)

    def _check(self, manifest: Manifest, reference: str) -> Mapping[str, Rows]:
        """Rows of each split that expectations set aside. Raises Refused, naming all that do."""
        if self._expectations is None:
            return {}
        from penstock.data.expectations import digest_of, hold, refuse

        where = f"dataset {reference}"
        held = hold(self._blobs, manifest, self._expectations, self._layout.samples, reference)
        refuse(held.violations, where)
        told = manifest.digest, digest_of(self._expectations)
        if self._link.rank == 0 and told not in self._told:
            self._told.add(told)
            for each in held.violations:
                _log.warning(f"{where} is not as expected: {each}")
            aside = {split: len(rows) for split, rows in held.aside.items()}
            if aside:
                _log.warning(f"{where}: {sum(aside.values())} rows are set aside: {aside}")
            violations = [each.as_dict() for each in held.violations]
            facts = {"reference": reference, "expectations": told[1], "by": held.by}
            self._link.tell("checked", {**facts, "violations": violations, "aside": aside})
        return held.aside

    def _tell(self, reference: str, order: Any, **mixture: Any) -> None:
        """Into the run's history: in which order it reads. What is not the order's own of a source
        of a mixture is said by that."""
        if self._link.rank == 0:
            facts = {name: getattr(order, name) for name in order.__slots__}
            self._link.tell("data", {"reference": reference, **facts, **mixture})


class _Found(NamedTuple):
    """How a source is opened, its bytes in memory, the column that names a row, and the numbers
    of the rows that are set aside (None: none)."""

    opening: Any
    size: int
    key: str
    aside: Rows | None = None


_NOT_OF_STREAMS = (
    "shuffle",
    "window_rows",
    "pad_last",
    "aside",
    "filter",
    "map",
    "batch_map",
    "collate",
)


def _refuse_of_stream(options: Options) -> None:
    """Options that an IterableDataset would pass over in silence. BadInput."""
    from penstock.data.pipeline.options import check_names

    check_names(options)
    asked = [name for name in _NOT_OF_STREAMS if options.get(name)]
    asked += [
        name for name, plain in (("epochs", 1), ("workers", 0)) if options.get(name, plain) != plain
    ]
    if asked:
        raise BadInput(
            f"an IterableDataset takes no {', '.join(asked)}",
            "Do it in the dataset itself, or give a map-style Dataset: its order is exact.",
            options=asked,
        )


def _refuse_holes(found: _Found) -> None:
    if found.aside is not None:
        raise BadInput(
            f"{len(found.aside)} rows of {found.opening.name}:{found.opening.split} are set aside "
            "by expectations, and samples of several rows would reach over the holes",
            "Make a version without them: ps.prepare(…, expect=…); or warn instead of quarantine.",
        )
